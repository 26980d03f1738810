// The OpenAPI document as a page, without any library.

/** An element with attributes and children. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Text in which `…` is code. */
function prose(text) {
  return (text ?? "").split("`").map((part, i) => (i % 2 ? make("code", {}, part) : part));
}

let schemas = {};
const resolve = (schema) => (schema?.$ref ? schemas[schema.$ref.split("/").pop()] : schema) ?? {};
const nameOf = (schema) => schema?.$ref?.split("/").pop() ?? schema?.title;

/** A schema in a few words: "integer, 1 … 1000". */
function kind(schema) {
  if (schema.$ref) return nameOf(schema);
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(", ");
  if (schema.prefixItems) return `[${schema.prefixItems.map(kind).join(", ")}]`;
  if (schema.type === "array") return `list of ${kind(schema.items ?? {})}`;
  if (schema.format === "binary" || schema.contentMediaType) return "bytes";
  const low = schema.minimum ?? (schema.exclusiveMinimum === undefined ? null : `more than ${schema.exclusiveMinimum}`);
  const high = schema.maximum ?? (schema.exclusiveMaximum === undefined ? null : `less than ${schema.exclusiveMaximum}`);
  const range = low === null && high === null ? "" : `, ${low ?? "…"} … ${high ?? ""}`;
  return (schema.type ?? "anything") + range;
}

/** Rows of a table: the fields of an object, or parameters. */
function table(rows) {
  const body = rows.map(({ name, schema, required, description }) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, make("code", {}, name), required ? make("span", { class: "required" }, "required") : ""),
      make(
        "td",
        {},
        make("div", { class: "kind" }, kind(schema), "default" in schema ? `, default ${JSON.stringify(schema.default)}` : ""),
        ...prose(description ?? schema.description),
      ),
    ),
  );
  return make("div", { class: "scroll" }, make("table", {}, make("tbody", {}, ...body)));
}

/** The fields of a schema, and in folds those of the schemas it consists of. */
function fields(schema, seen = []) {
  const whole = resolve(schema);
  const parts = [];
  if (whole.description) parts.push(make("p", {}, ...prose(whole.description)));
  const properties = Object.entries(whole.properties ?? {});
  if (properties.length) {
    parts.push(
      table(properties.map(([name, inner]) => ({ name, schema: inner, required: whole.required?.includes(name) }))),
    );
  }
  for (const inner of mentioned(whole)) {
    const name = nameOf(inner);
    if (seen.includes(name)) continue;
    parts.push(make("details", {}, make("summary", {}, name), ...fields(inner, [...seen, name])));
  }
  return parts;
}

/** The references within a schema, each once. */
function mentioned(schema) {
  const found = new Map();
  const look = (part) => {
    if (part?.$ref) found.set(part.$ref, part);
    else if (part && typeof part === "object") Object.values(part).forEach(look);
  };
  look(schema.properties ?? schema.items ?? schema.anyOf ?? {});
  return [...found.values()];
}

function curl(path, method, operation) {
  const address = `${location.origin}${path}`;
  const content = Object.keys(operation.requestBody?.content ?? {});
  if (method === "get") return `curl ${address}`;
  if (content.includes("application/json")) return `curl ${address} --json @request.json --remote-header-name --remote-name`;
  const field = Object.keys(operation.requestBody.content["multipart/form-data"].schema.properties)[0];
  const files = field === "files" ? "-F files=@one.jpg -F files=@two.jpg" : `-F ${field}=@photo.jpg`;
  const query = operation.parameters?.length ? "?top=100" : "";
  return `curl '${address}${query}' ${files}${path.endsWith("picture") ? " --output picture.jpg" : ""}`;
}

function describe(path, method, operation) {
  const parts = [
    make("h3", {}, make("span", { class: `method ${method}` }, method.toUpperCase()), make("code", {}, path)),
    make("p", {}, ...prose(operation.description)),
    make("pre", { tabindex: "0", "aria-label": "Example" }, curl(path, method, operation)),
  ];
  if (operation.parameters?.length) {
    parts.push(make("h4", {}, "Parameters of the address"), table(operation.parameters));
  }
  for (const [type, { schema }] of Object.entries(operation.requestBody?.content ?? {})) {
    parts.push(make("details", {}, make("summary", {}, "Body as ", make("code", {}, type)), ...fields(schema)));
    if (!schema.properties && !schema.$ref) parts.at(-1).append(make("p", {}, "The bytes of the image."));
  }
  parts.push(make("h4", {}, "Answers"));
  for (const [status, answer] of Object.entries(operation.responses)) {
    const schema = Object.values(answer.content ?? {})[0]?.schema;
    const line = [make("code", { class: status < 300 ? "good" : "bad" }, status), " ", ...prose(answer.description)];
    parts.push(
      schema?.$ref && status < 300
        ? make("details", {}, make("summary", {}, ...line), ...fields(schema))
        : make("p", { class: "answer" }, ...line),
    );
  }
  return make("article", { id: `${method}${path.replaceAll("/", "-")}` }, ...parts);
}

async function show() {
  const main = document.getElementById("docs");
  try {
    const response = await fetch("/openapi.json");
    if (!response.ok) throw new Error(`status ${response.status}`);
    const api = await response.json();
    schemas = api.components?.schemas ?? {};
    const operations = Object.entries(api.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => describe(path, method, operation)),
    );
    main.append(
      make("section", { class: "intro" }, make("h1", {}, `${api.info.title} ${api.info.version}`), make("p", {}, ...prose(api.info.description))),
      ...operations,
    );
  } catch (error) {
    main.append(make("p", { role: "alert" }, `The description cannot be loaded (${error.message}).`));
  }
  main.setAttribute("aria-busy", "false");
}

show();
