"""COCO-format annotations in; checked data and canonical examples out."""
