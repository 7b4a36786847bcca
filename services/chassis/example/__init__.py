"""Query by example: a list RPC describes its resource once, and gets examples, ordering, time ranges and pages.

`resource` says what may be asked, `coercion` and `matching` turn an example into predicates, `ordering` and `ranges` do
the same for their parts of a request, `statement` writes them as SQL, `query` puts all of it together.
"""
