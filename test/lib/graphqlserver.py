"""A GraphQL server (strawberry, with its own relay pages) over a SQLite database.

usage: python3 -m uvicorn --app-dir test/lib --factory graphqlserver:make_app; the
environment's GRAPHQL_DATABASE names the file.
"""
import os
import sqlite3
from typing import List, Optional

import strawberry
from strawberry import relay
from strawberry.asgi import GraphQL


@strawberry.type
class Reading(relay.Node):
    code: relay.NodeID[int]
    number: strawberry.ID            # Int has 32 bits
    sensor: Optional[str]
    value: Optional[float]
    taken_at: str
    note: Optional[str]


def read_all():
    database = sqlite3.connect('file:%s?mode=ro' % os.environ['GRAPHQL_DATABASE'], uri=True)
    rows = database.execute('SELECT id, sensor, value, taken_at, note FROM reading ORDER BY id').fetchall()
    database.close()
    return [Reading(code=row[0], number=strawberry.ID(str(row[0])), sensor=row[1], value=row[2], taken_at=row[3], note=row[4]) for row in rows]


@strawberry.type
class Query:
    @relay.connection(relay.ListConnection[Reading])
    def readings(self, since: Optional[str] = None) -> List[Reading]:
        return [reading for reading in read_all() if since is None or reading.taken_at >= since]


def make_app():
    return GraphQL(strawberry.Schema(query=Query))
