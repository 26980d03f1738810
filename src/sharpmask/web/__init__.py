"""The local web page and its JSON API (extra `web`): see `sharpmask serve` and docs/serve.md.

`create_app` (app.py) is the whole thing as an ASGI application; `serve` (server.py) runs it. Nothing is kept about
a client: the page holds the masks, and sends those to be exported back.
"""
