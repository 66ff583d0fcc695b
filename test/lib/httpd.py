#!/usr/bin/env python3
"""An HTTP server for tests, good and bad, that does what it is told.

usage: httpd.py LOG [CERTIFICATE KEY]

Listens on free ports of 127.0.0.1 and 127.0.0.2, with a certificate also by TLS,
prints them ("ready {...}") and ends with its standard input.  Every request is
written to LOG: a line of JSON when it comes ("at": "begin"), one before its answer
("at": "answer") and one when that has gone out ("at": "end").

A data set is a list of rows in memory.  What is served is chosen by the path:

  /link/S /next/S /nextrel/S /token/S /page/S /offset/S /last/S   pages of data set S
  /plain/S /nested/S /ndjson/S /csv/S /xml/S /text/S              all of it
  POST /graphql                                                   pages, variables name, first, after
  /repos/OWNER/REPO/issues                                        pages of data set OWNER/REPO, or 404
  /loop/KIND                                                      pages without an end
  /gen/ndjson?rows=N /gen/csv?rows=N                              streams made up as they are sent
  /manifest/BUCKET /s3/BUCKET /object/BUCKET/KEY                  objects
  /auth/KIND/...                                                  the rest, for those who may
  /oauth/token  /redirect?to=URL  /echo

All lists of rows know since=, until=, from=, to= (of the field in by=, else
updated_at; from included, to not) and sort=FIELD.

POST /_control takes an operation or a list of them; see Control.  What the next
requests of a path get instead is told by its operation "behave".
"""
import base64
import calendar
import csv
import email.utils
import gzip
import hashlib
import io
import json
import os
import re
import socket
import socketserver
import ssl
import struct
import sys
import threading
import time
import urllib.parse
import zlib
from http.server import BaseHTTPRequestHandler
from xml.sax.saxutils import escape

lock = threading.RLock()
sets = {}                   # name: [row, ...]
modified = {}               # name: Unix time
objects = {}                # bucket: {key: (body, etag)}
behaviours = []
ports = {}
stamp = time.time


# ---- rows

def make_row(i, equal=1, start='2026-01-01T00:00:00Z', step=60):
    """Row i; so many rows in a row have the same time."""
    at = calendar.timegm(time.strptime(start, '%Y-%m-%dT%H:%M:%SZ')) + i // equal * step
    return {'id': i, 'title': 'title %d' % i, 'state': 'open' if i % 3 else 'closed', 'score': i / 4,
            'updated_at': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(at))}


def moment(value):
    """A time in any way a request may say it, as a number; other texts as they are."""
    if isinstance(value, (int, float)):
        return (0, float(value) / 1000 if value > 1e11 else float(value), '')
    text = str(value)
    if re.fullmatch(r'-?\d+(\.\d+)?', text):
        number = float(text)
        return (0, number / 1000 if number > 1e11 else number, '')
    found = re.fullmatch(r'(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?', text)
    if not found:
        return (1, 0.0, text)
    clock = found[2] or '00:00:00'
    at = calendar.timegm(time.strptime('%s %s' % (found[1], clock if len(clock) > 5 else clock + ':00'),
                                       '%Y-%m-%d %H:%M:%S')) + float(found[3] or 0)
    zone = found[4]
    if zone and zone != 'Z':
        at -= (1 if zone[0] == '+' else -1) * (int(zone[1:3]) * 3600 + int(zone[-2:]) * 60)
    return (0, at, '')


def select_rows(name, query):
    with lock:
        rows = list(sets.get(name, ()))
    field = query.get('by', 'updated_at')
    for parameter, passes in (('since', lambda a, b: a >= b), ('after_time', lambda a, b: a > b), ('until', lambda a, b: a <= b),
                              ('from', lambda a, b: a >= b), ('to', lambda a, b: a < b)):
        if query.get(parameter):
            border = moment(query[parameter])
            rows = [row for row in rows if passes(moment(row.get(field, '')), border)]
    if 'sort' in query:
        rows.sort(key=lambda row: (moment(row.get(query['sort'], '')), row.get('id', 0)))
    return rows


# ---- answers

class Answer:
    """A whole answer, or one whose body is made piece by piece."""
    def __init__(self, body=b'', status=200, content_type='application/json', headers=(), pieces=None, reason=None):
        if not isinstance(body, bytes):
            body = json.dumps(body, ensure_ascii=False).encode()
        self.body, self.status, self.type = body, status, content_type
        self.headers, self.pieces, self.reason = list(headers), pieces, reason


REASONS = {200: 'OK', 206: 'Partial Content', 302: 'Found', 304: 'Not Modified', 400: 'Bad Request', 401: 'Unauthorized',
           403: 'Forbidden', 404: 'Not Found', 416: 'Range Not Satisfiable', 429: 'Too Many Requests', 503: 'Service Unavailable'}


def answer_error(status, message):
    return Answer({'error': message}, status)


class Request:
    def __init__(self, handler, body):
        url = urllib.parse.urlsplit(handler.path)
        self.handler, self.method, self.body = handler, handler.command, body
        self.path = url.path
        self.query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        self.headers = {name.lower(): value for name, value in handler.headers.items()}

    def number(self, name, default):
        try:
            return int(self.query.get(name, default))
        except ValueError:
            return default

    def url(self, path=None, **changes):
        """This URL with other parameters, absolute; those that are None are left out."""
        query = {k: v for k, v in {**self.query, **changes}.items() if v is not None}
        return '%s%s?%s' % (self.handler.server.origin, path or self.path, urllib.parse.urlencode(query))


# ---- pages

def page_link(request, rows):
    page, size = request.number('page', 1), request.number('per_page', 50)
    links = ['<%s>; rel="first"' % request.url(page=1)]
    if page * size < len(rows):
        links.insert(0, '<%s>; rel="next"; title="a, \\"b\\""' % request.url(page=page + 1))
    return Answer(rows[(page - 1) * size:page * size], headers=[('Link', ', '.join(links))])


def page_next(request, rows, relative=False):
    page, size = request.number('page', 1), request.number('per_page', 50)
    following = None
    if page * size < len(rows):
        following = request.url(page=page + 1)
        if relative:
            following = following[len(request.handler.server.origin):]
            following = '?' + following.split('?', 1)[1] if page % 2 else following
    return Answer({'items': rows[(page - 1) * size:page * size], 'links': {'next': following}, 'total': len(rows)})


def page_token(request, rows):
    at, size = 0, request.number('limit', 50)
    token = request.query.get('cursor')
    if token:
        at = int(base64.b64decode(token.encode() + b'==').decode().split('/')[0])
    token = base64.b64encode(b'%d/+&=?' % (at + size)).decode() if at + size < len(rows) else ''
    return Answer({'items': rows[at:at + size], 'meta': {'next_cursor': token}, 'has_more': token != ''})


def page_number(request, rows):
    page, size = request.number('page', 1) - request.number('first', 1), request.number('limit', 50)
    return Answer({'items': rows[page * size:(page + 1) * size], 'total': len(rows), 'pages': (len(rows) + size - 1) // size,
                   'more': (page + 1) * size < len(rows)})


def page_offset(request, rows):
    at, size = request.number('offset', 0), request.number('limit', 50)
    return Answer(rows[at:at + size])


def page_last(request, rows):
    after, size = request.number('after', -1), request.number('limit', 50)
    return Answer({'items': [row for row in sorted(rows, key=lambda row: row['id']) if row['id'] > after][:size]})


def page_graphql(request, rows, variables):
    size = int(variables.get('first') or 50)
    at = int(variables['after'][1:]) if variables.get('after') else 0
    part = rows[at:at + size]
    return Answer({'data': {'items': {
        'edges': [{'cursor': 'c%d' % (at + i + 1), 'node': row} for i, row in enumerate(part)],
        'pageInfo': {'hasNextPage': at + size < len(rows), 'endCursor': 'c%d' % (at + len(part)) if part else None}}}})


def serve_graphql(request):
    try:
        asked = json.loads(request.body)
        variables = asked.get('variables') or {}
        assert 'pageInfo' in asked['query']
    except (ValueError, KeyError, AssertionError) as wrong:
        return Answer({'errors': [{'message': 'the query cannot be read: %r' % (wrong,)}], 'data': None})
    return page_graphql(request, select_rows(variables.get('name', ''), variables), variables)


def page_loop(request, kind):
    """Pages that never end, each in its own way."""
    rows = lambda n: [make_row(n * 2 + i) for i in range(2)]
    token = request.query.get('cursor', '')
    page = request.number('page', 1)
    if kind == 'same':                  # the same token for ever
        return Answer({'items': rows(0), 'meta': {'next_cursor': 'again'}})
    if kind == 'cycle':                 # a b c a b c
        at = {'': 0, 'a': 1, 'b': 2, 'c': 3}[token]
        return Answer({'items': rows(at), 'meta': {'next_cursor': 'abca'[at]}})
    if kind == 'self':                  # a URL that leads to itself
        return Answer({'items': rows(0), 'links': {'next': request.url()}})
    if kind == 'always':                # one more page, always, with new rows
        return Answer({'items': rows(page), 'links': {'next': request.url(page=page + 1)}})
    if kind == 'empty':                 # one more page, always, without rows
        return Answer({'items': [], 'links': {'next': request.url(page=page + 1)}, 'meta': {'next_cursor': 'e%d' % page}})
    if kind == 'last':                  # beyond the end the last page once more
        return Answer({'items': rows(min(page, 3))})
    if kind == 'deaf':                  # parameters are not looked at
        return Answer({'items': rows(0)})
    if kind == 'link':
        return Answer(rows(page), headers=[('Link', '<%s>; rel=next' % request.url(page=page % 3 + 1))])
    if kind == 'graphql':
        return Answer({'data': {'items': {'edges': [{'node': row} for row in rows(0)],
                                          'pageInfo': {'hasNextPage': True, 'endCursor': 'stuck'}}}})
    return answer_error(404, 'no such loop')


# ---- whole bodies

def text_of(value):
    return '' if value is None else json.dumps(value) if isinstance(value, (dict, list, bool)) else str(value)


def body_csv(rows):
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\r\n')
    writer.writerow(names)
    writer.writerows([[text_of(row.get(name)) for name in names] for row in rows])
    return text.getvalue().encode()


def body_xml(rows):
    items = ''.join('<item id="%s">%s</item>' % (row['id'], ''.join(
        '<%s>%s</%s>' % (name, escape(text_of(value)), name) for name, value in row.items() if name != 'id')) for row in rows)
    return ('<?xml version="1.0" encoding="UTF-8"?>\n<feed><page>%s</page></feed>' % items).encode()


WHOLE = {
    'plain': ('application/json', lambda rows: json.dumps(rows, ensure_ascii=False).encode()),
    'nested': ('application/json', lambda rows: json.dumps({'data': {'groups': [
        {'name': str(i), 'items': rows[i:i + 7]} for i in range(0, len(rows), 7)]}}).encode()),
    'ndjson': ('application/x-ndjson', lambda rows: b''.join(json.dumps(row).encode() + b'\n' for row in rows)),
    'csv': ('text/csv', body_csv),
    'xml': ('application/xml', body_xml),
    'text': ('text/plain', lambda rows: ''.join('%s\n' % row.get('title') for row in rows).encode()),
}


def validators(request, etag, at):
    """Headers, and whether the peer has it already."""
    headers, known = [], False
    wants = request.query.get('etag')
    if wants:
        etag = {'weak': 'W/"%s"', 'strong': '"%s"'}.get(wants, '"%s"') % etag
        headers.append(('ETag', etag))
        plain = lambda tag: tag.strip().removeprefix('W/')
        known = plain(etag) in [plain(tag) for tag in request.headers.get('if-none-match', '').split(',')]
    if 'modified' in request.query:
        headers.append(('Last-Modified', email.utils.formatdate(at, usegmt=True)))
        since = request.headers.get('if-modified-since')
        if since and 'if-none-match' not in request.headers:
            known = email.utils.parsedate_to_datetime(since).timestamp() >= int(at)
    return headers, known


def cut_range(request, answer, size, etag=None):
    """The first byte that is asked for, when it is and may be."""
    found = re.fullmatch(r'bytes=(\d+)-', request.headers.get('range', ''))
    if not found or request.query.get('range') == 'no':
        return 0
    condition = request.headers.get('if-range')
    ours = dict(answer.headers)
    if condition and condition not in (ours.get('ETag'), ours.get('Last-Modified')):
        return 0
    first = int(found[1])
    if first >= size:
        answer.status, answer.body, answer.pieces = 416, b'', None
        answer.headers.append(('Content-Range', 'bytes */%d' % size))
        return 0
    answer.status = 206
    answer.headers.append(('Content-Range', 'bytes %d-%d/%d' % (first, size - 1, size)))
    return first


def serve_whole(request, kind, name):
    content_type, render = WHOLE[kind]
    body = render(select_rows(name, request.query))
    if request.query.get('bom'):
        body = b'\xef\xbb\xbf' + body
    if request.query.get('charset'):
        content_type += '; charset=' + request.query['charset']
        body = body.decode().encode(request.query['charset'])
    coding = []
    if request.query.get('stored') == 'gzip':       # as it is, and so its parts
        body, coding = gzip.compress(body, mtime=0), [('Content-Encoding', 'gzip')]
    headers, known = validators(request, hashlib.sha1(body).hexdigest()[:16], modified.get(name, 0))
    if known:
        return Answer(b'', 304, content_type, headers)
    answer = Answer(body, 200, content_type, headers + coding)
    first = cut_range(request, answer, len(body))
    if first:
        answer.body = body[first:]
    return answer


# Every line has the same length, so that any of them can be found.
GENERATED = {
    'ndjson': (b'', lambda i: b'{"id": %12d, "name": "sensor %08d", "value": %10.3f, "updated_at": "2026-01-01T00:00:00Z"}\n'
               % (i, i * 7919 % 100000000, i % 1000003 / 8)),
    'csv': (b'id,name,value\n', lambda i: b'%012d,sensor %08d,%010.3f\n' % (i, i * 7919 % 100000000, i % 1000003 / 8)),
}


def serve_generated(request, kind):
    head, line = GENERATED[kind]
    rows, width = request.number('rows', 1000), len(line(0))
    size = len(head) + rows * width
    answer = Answer(b'', 200, 'application/x-ndjson' if kind == 'ndjson' else 'text/csv')
    answer.headers, known = validators(request, 'g%d' % rows, 1700000000)
    if known:
        answer.status = 304
        return answer
    first = cut_range(request, answer, size)
    if answer.status == 416:
        return answer

    def pieces():
        skip = first
        if skip < len(head):
            yield head[skip:]
            skip = len(head)
        i, rest = divmod(skip - len(head), width)
        while i < rows:
            some = b''.join(map(line, range(i, min(i + 500, rows))))
            yield some[rest:]
            i, rest = i + 500, 0
    answer.pieces = pieces()
    if request.query.get('chunked') != '1':
        answer.headers.append(('Content-Length', str(size - first)))
    return answer


# ---- objects

def serve_object(request, bucket, key):
    with lock:
        found = objects.get(bucket, {}).get(key)
    if not found:
        return answer_error(404, 'no such object')
    body, etag = found
    answer = Answer(body, 200, 'application/octet-stream', [('ETag', '"%s"' % etag), ('Accept-Ranges', 'bytes')])
    if request.headers.get('if-match', '"%s"' % etag) != '"%s"' % etag:
        return Answer(b'', 412, 'application/octet-stream', answer.headers)
    first = cut_range(request, answer, len(body))
    if first:
        answer.body = body[first:]
    return answer


def serve_manifest(request, bucket):
    """style=name: relative names; file: paths, not encoded; url: URLs; else names and URLs."""
    with lock:
        found = sorted(objects.get(bucket, {}).items())
    style = request.query.get('style')
    path = lambda key: '/object/%s/%s' % (bucket, key)
    if style == 'name':
        return Answer(['..' + path(key) for key, value in found])
    entries = []
    for key, (body, etag) in found:
        entry = {'size': len(body), 'etag': etag}
        if style != 'url':
            entry['file' if style == 'file' else 'name'] = path(key) if style == 'file' else key
        if style != 'file':
            entry['url'] = request.handler.server.origin + urllib.parse.quote(path(key))
        entries.append(entry)
    return Answer({'files': entries})


def serve_s3(request, bucket, key):
    if key:
        return serve_object(request, bucket, key)
    with lock:
        found = sorted(objects.get(bucket, {}).items())
    prefix, most = request.query.get('prefix', ''), min(request.number('max-keys', 1000), 1000)
    after = request.query.get('continuation-token') or request.query.get('start-after') or ''
    found = [(k, v) for k, v in found if k.startswith(prefix) and k > after]
    part, more = found[:most], len(found) > most
    text = ''.join('<Contents><Key>%s</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;%s&quot;</ETag>'
                   '<Size>%d</Size><StorageClass>STANDARD</StorageClass></Contents>' % (escape(k), etag, len(body))
                   for k, (body, etag) in part)
    return Answer(('<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                   '<Name>%s</Name><Prefix>%s</Prefix><KeyCount>%d</KeyCount><MaxKeys>%d</MaxKeys><IsTruncated>%s</IsTruncated>%s%s'
                   '</ListBucketResult>' % (bucket, escape(prefix), len(part), most, 'true' if more else 'false',
                                            '<NextContinuationToken>%s</NextContinuationToken>' % escape(part[-1][0]) if more else '',
                                            text)).encode(), 200, 'application/xml')


# ---- who may

class Auth:
    """What is right, and the tokens given out."""
    user, password = 'etl', 'secret'
    bearer = 'token-1'
    key, key_header, key_parameter = 'key-1', 'x-api-key', 'api_key'
    client, secret = 'client-1', 'secret-1'
    lifetime = 3600
    rotate = False
    tokens = {}             # access token: valid until
    refresh = {}            # refresh tokens that are good
    given = 0


def basic_of(request):
    kind, _, rest = request.headers.get('authorization', '').partition(' ')
    if kind.lower() != 'basic':
        return None, None
    return tuple(base64.b64decode(rest).decode().split(':', 1))


def is_authorized(request, kind):
    authorization = request.headers.get('authorization', '')
    if kind == 'basic':
        return basic_of(request) == (Auth.user, Auth.password)
    if kind == 'bearer':
        return authorization == 'Bearer ' + Auth.bearer
    if kind == 'apikey':
        return request.headers.get(Auth.key_header) == Auth.key
    if kind == 'apiquery':
        return request.query.get(Auth.key_parameter) == Auth.key
    if kind == 'oauth':
        with lock:
            return Auth.tokens.get(authorization.removeprefix('Bearer '), 0) > time.time()
    return kind == 'none'


def serve_token(request):
    form = dict(urllib.parse.parse_qsl(request.body.decode()))
    client = basic_of(request)
    if client[0] is not None:
        client = tuple(urllib.parse.unquote_plus(part) for part in client)
    else:
        client = form.get('client_id'), form.get('client_secret')
    if client != (Auth.client, Auth.secret):
        return Answer({'error': 'invalid_client', 'error_description': 'not %s' % client[0]}, 401)
    with lock:
        answer = {'token_type': 'Bearer', 'expires_in': Auth.lifetime}
        if form.get('grant_type') == 'refresh_token':
            if form.get('refresh_token') not in Auth.refresh:
                return Answer({'error': 'invalid_grant'}, 400)
            if Auth.rotate:
                del Auth.refresh[form['refresh_token']]
                Auth.given += 1
                answer['refresh_token'] = 'refresh-%d' % Auth.given
                Auth.refresh[answer['refresh_token']] = True
        elif form.get('grant_type') != 'client_credentials':
            return Answer({'error': 'unsupported_grant_type'}, 400)
        Auth.given += 1
        answer['access_token'] = 'access-%d' % Auth.given
        Auth.tokens[answer['access_token']] = time.time() + Auth.lifetime
    return Answer(answer, headers=[('Cache-Control', 'no-store')])


# ---- paths

PAGES = {'link': page_link, 'next': page_next, 'nextrel': lambda request, rows: page_next(request, rows, True),
         'token': page_token, 'page': page_number, 'offset': page_offset, 'last': page_last}


def serve(request):
    parts = [urllib.parse.unquote(part) for part in request.path.split('/')[1:]]
    kind, rest = parts[0], '/'.join(parts[1:])
    if kind == 'auth':
        if not is_authorized(request, parts[1]):
            return Answer({'error': 'not authorized', 'headers': request.headers}, 401, headers=[('WWW-Authenticate', 'Bearer')])
        request.path = '/' + '/'.join(request.path.split('/')[3:])
        return serve(request)
    if kind == 'graphql':
        return serve_graphql(request)
    if kind == 'repos' and parts[-1] == 'issues':
        name = '/'.join(parts[1:-1])
        return page_number(request, select_rows(name, request.query)) if name in sets else answer_error(404, 'no such repository')
    if kind == 'loop':
        return page_loop(request, rest)
    if kind == 'gen':
        return serve_generated(request, rest)
    if kind == 'manifest':
        return serve_manifest(request, rest)
    if kind == 's3':
        return serve_s3(request, parts[1], '/'.join(parts[2:]))
    if kind == 'object':
        return serve_object(request, parts[1], '/'.join(parts[2:]))
    if kind == 'oauth' and rest == 'token':
        return serve_token(request)
    if kind == 'redirect':
        return Answer(b'', request.number('code', 302), headers=[('Location', request.query.get('to', request.path))])
    if kind == 'echo':
        return Answer({'method': request.method, 'path': request.handler.path, 'headers': request.headers,
                       'body': request.body.decode('latin-1')})
    if rest not in sets:
        return answer_error(404, 'no data set %s' % rest)
    if kind in PAGES:
        return PAGES[kind](request, select_rows(rest, request.query))
    if kind in WHOLE:
        return serve_whole(request, kind, rest)
    return answer_error(404, 'no such path')


# ---- behaviours

class Behaviour:
    """What a path does after "skip" requests for "times" requests (-1: always)."""
    def __init__(self, path, do, skip=0, times=1):
        self.pattern, self.do, self.skip, self.times = re.compile(path), do, skip, times

    def meets(self, path):
        """Is it its turn?  Those that it lets pass are counted."""
        if self.times == 0 or not self.pattern.search(path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        return True


def find_behaviour(path):
    """The first that meets the request; the others wait for theirs."""
    with lock:
        met = [b for b in behaviours if b.meets(path)]
        if met and met[0].times > 0:
            met[0].times -= 1
        behaviours[:] = [b for b in behaviours if b.times != 0]
    return met[0].do if met else {}


def zeros(level=9):
    """16 MB of blanks as a piece of a deflate stream that can be repeated."""
    squeeze = zlib.compressobj(level, zlib.DEFLATED, -15)
    return squeeze.compress(b' ' * (16 << 20)) + squeeze.flush(zlib.Z_FULL_FLUSH)


GZIP_HEAD = b'\x1f\x8b\x08\0\0\0\0\0\0\xff'


def change(answer, do):
    """The answer as the behaviour wants it."""
    if 'status' in do:
        answer.status = do['status']
    if 'body' in do:
        answer.body, answer.pieces = do['body'].encode(), None
    if 'body_base64' in do:
        answer.body, answer.pieces = base64.b64decode(do['body_base64']), None
    if 'type' in do:
        answer.type = do['type']
    if 'reason' in do:
        answer.reason = do['reason']
    for name, value in do.get('headers', {}).items():
        answer.headers = [h for h in answer.headers if h[0].lower() != name.lower()]
        if value is not None:
            answer.headers.append((name, value.replace('{date}', email.utils.formatdate(time.time(), usegmt=True))))
    if 'retry_after_date' in do:
        answer.headers.append(('Retry-After', email.utils.formatdate(time.time() + do['retry_after_date'], usegmt=True)))
    if 'extra' in do:                       # from the body's rows on, with other values
        rows = json.loads(answer.body)
        for row in rows if isinstance(rows, list) else rows['items']:
            row.update(do['extra'])
        answer.body = json.dumps(rows).encode()
    for coding in do.get('encode', ()):
        answer.body = gzip.compress(answer.body) if coding in ('gzip', 'x-gzip') else zlib.compress(answer.body)
    if do.get('encode'):
        answer.headers.append(('Content-Encoding', ', '.join(do['encode'])))
    if do.get('bomb') == 'gzip':            # blanks without an end
        answer.headers.append(('Content-Encoding', 'gzip'))
        answer.pieces = (piece for piece in repeat(GZIP_HEAD + zeros(), zeros()))
    if do.get('bomb') == 'double':          # 10 GB in some kB
        inner = GZIP_HEAD + zeros() * 640
        answer.body = gzip.compress(inner)
        answer.headers.append(('Content-Encoding', 'gzip, gzip'))
    if 'endless' in do:
        piece = do['endless'].encode()
        piece = piece * (65536 // len(piece) + 1)
        answer.pieces = repeat(do.get('begin', '').encode() + piece, piece)
    return answer


def repeat(first, piece):
    yield first
    while True:
        yield piece


# ---- the wire

class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    connections = 0
    requests = 0

    def setup(self):
        with lock:
            Handler.connections += 1
            self.connection_id = Handler.connections
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.handle_any()

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET

    def read_body(self):
        return self.rfile.read(int(self.headers.get('Content-Length') or 0))

    def handle_any(self):
        body = self.read_body()
        if self.path == '/_control':
            return self.control(body)
        with lock:
            Handler.requests += 1
            number = Handler.requests
        self.number, self.sent, self.status = number, 0, None
        url = urllib.parse.urlsplit(self.path)
        note(at='begin', n=number, time=time.time(), connection=self.connection_id, server=self.server.name, method=self.command,
             target=self.path, path=url.path, query=dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True)),
             headers={name.lower(): value for name, value in self.headers.items()}, body=body.decode('latin-1'))
        try:
            self.respond(body)
        except (OSError, ssl.SSLError):
            self.close_connection = True
        finally:
            note(at='end', n=number, time=time.time(), status=self.status, sent=self.sent)

    def control(self, body):
        try:
            result, status = control(json.loads(body)), 200
        except Exception as wrong:
            result, status = {'error': repr(wrong)}, 400
        text = json.dumps(result).encode()
        self.wfile.write(b'HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n' % (status, len(text)) + text)

    def respond(self, body):
        do = find_behaviour(self.path)
        if do.get('ops'):
            control(do['ops'])
        if do.get('delay'):
            time.sleep(do['delay'])
        if 'raw' in do:
            self.put(base64.b64decode(do['raw']))
            return self.hang_up(do)
        if do.get('reset') == 'at once':
            return self.reset()
        answer = change(serve(Request(self, body)), do)
        # Before anything of it is out: who has it knows that this is here.
        self.status = answer.status
        note(at='answer', n=self.number, status=self.status)
        head = self.head(answer, do)
        if answer.pieces is not None:
            return self.stream(head, answer, do)
        self.whole(head, answer, do)

    def head(self, answer, do):
        headers = [('Date', email.utils.formatdate(time.time() + do.get('skew', 0), usegmt=True)), ('Content-Type', answer.type)] + answer.headers
        named = {name.lower() for name, value in headers}
        headers = [h for h in headers if h[1] is not None]
        self.chunked = (do.get('chunked') or answer.pieces is not None) and 'content-length' not in named
        if self.chunked:
            headers.append(('Transfer-Encoding', 'chunked'))
        elif 'content-length' not in named and answer.status != 304:
            headers.append(('Content-Length', str(len(answer.body) + do.get('wrong_length', 0))))
        lines = ['%s: %s\r\n' % h for h in headers]
        bomb = do.get('header_bomb')
        if bomb:
            lines += ['X-Bomb-%d: %s\r\n' % (i, 'b' * bomb.get('size', 100)) for i in range(bomb.get('count', 1))]
        reason = answer.reason or REASONS.get(answer.status, 'Something')
        return ('HTTP/1.1 %d %s\r\n%s\r\n' % (answer.status, reason, ''.join(lines))).encode('latin-1', 'replace')

    def whole(self, head, answer, do):
        body = b'' if answer.status == 304 or self.command == 'HEAD' else answer.body
        if self.chunked:
            size = do.get('chunk', 512)
            body = b''.join(b'%x\r\n%s\r\n' % (len(body[i:i + size]), body[i:i + size]) for i in range(0, len(body), size)) + b'0\r\n\r\n'
        wire = head + body
        if 'cut_head' in do:
            wire = head[:do['cut_head']]
        elif 'cut' in do:                   # bytes of the body; of its end, when negative
            wire = head + body[:do['cut']]
        if do.get('drip'):
            self.drip(wire, len(head), do['drip'])
        else:
            self.put(wire)
        if len(wire) < len(head) + len(body) or do.get('wrong_length', 0) != 0:
            return self.reset() if do.get('reset') == 'after' else self.hang_up({})
        if do.get('close'):
            self.hang_up({})

    def drip(self, wire, head, drip):
        """A byte now and then; of the head, too, or only of the body."""
        at = 0 if drip.get('head') else head
        self.put(wire[:at])
        for i in range(at, len(wire), drip.get('bytes', 1)):
            time.sleep(drip.get('interval', 1))
            self.put(wire[i:i + drip.get('bytes', 1)])

    def stream(self, head, answer, do):
        self.put(head)
        left = do.get('cut', -1)
        for piece in answer.pieces:
            if left >= 0:
                piece, left = piece[:left], left - len(piece)
            self.put(b'%x\r\n%s\r\n' % (len(piece), piece) if self.chunked else piece)
            if do.get('pace'):
                time.sleep(do['pace'])
            if 'cut' in do and left <= 0:
                return self.reset() if do.get('reset') == 'after' else self.hang_up({})
        if self.chunked:
            self.put(b'0\r\n\r\n')

    def put(self, data):
        self.wfile.write(data)
        self.wfile.flush()
        self.sent += len(data)

    def hang_up(self, do):
        if do.get('hold'):
            time.sleep(do['hold'])
        self.close_connection = True

    def reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.connection.close()
        self.close_connection = True


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, name, host, context=None):
        self.name, self.context = name, context
        super().__init__((host, 0), Handler)
        self.origin = '%s://%s:%d' % ('https' if context else 'http', host, self.server_address[1])
        ports[name] = self.origin

    def finish_request(self, connection, address):
        if self.context:
            try:
                connection.settimeout(30)
                connection = self.context.wrap_socket(connection, server_side=True)
                connection.settimeout(None)
            except (OSError, ssl.SSLError) as wrong:
                note(at='refused', server=self.name, time=time.time(), why=str(wrong))
                return
        super().finish_request(connection, address)

    def handle_error(self, request, client_address):
        wrong = sys.exc_info()[1]
        if not isinstance(wrong, OSError):
            note(at='broken', server=self.name, time=time.time(), why=repr(wrong))


# ---- control

contexts = {}


def control(asked):
    if isinstance(asked, list):
        return [control(one) for one in asked]
    arguments = dict(asked)
    with lock:
        return getattr(Control, arguments.pop('op'))(**arguments)


class Control:
    """The operations; all in one lock."""
    @staticmethod
    def load(name, rows):
        sets[name] = rows
        modified[name] = time.time()

    @staticmethod
    def generate(name, count, first=0, **how):
        sets.setdefault(name, []).extend(make_row(i, **how) for i in range(first, first + count))
        modified[name] = time.time()

    @staticmethod
    def append(name, rows):
        sets.setdefault(name, []).extend(rows)
        modified[name] = time.time()

    @staticmethod
    def insert(name, at, rows):
        sets[name][at:at] = rows
        modified[name] = time.time()

    @staticmethod
    def delete(name, ids):
        sets[name] = [row for row in sets[name] if row['id'] not in ids]
        modified[name] = time.time()

    @staticmethod
    def update(name, id, values):
        for row in sets[name]:
            if row['id'] == id:
                row.update(values)
        modified[name] = time.time()

    @staticmethod
    def touch(name, at):
        modified[name] = at

    @staticmethod
    def dump(name):
        return sets[name]

    @staticmethod
    def object(bucket, key, body=None, rows=None, first=0, kind='ndjson', etag=None):
        if body is None:
            body = WHOLE[kind][1]([make_row(i) for i in range(first, first + rows)]).decode()
        body = body.encode()
        objects.setdefault(bucket, {})[key] = (body, etag or hashlib.md5(body).hexdigest())

    @staticmethod
    def remove(bucket, key):
        del objects[bucket][key]

    @staticmethod
    def behave(path, do, skip=0, times=1):
        behaviours.append(Behaviour(path, do, skip, times))

    @staticmethod
    def forget():
        """Behaviours, not data."""
        behaviours.clear()

    @staticmethod
    def auth(**values):
        for name, value in values.items():
            assert hasattr(Auth, name), name
            setattr(Auth, name, {v: True for v in value} if name == 'refresh' else value)

    @staticmethod
    def expire():
        """No access token is good any more."""
        Auth.tokens.clear()

    @staticmethod
    def refresh_tokens():
        return list(Auth.refresh)

    @staticmethod
    def connections():
        """How many there have been, with this one."""
        return Handler.connections

    @staticmethod
    def certificate(chain, key):
        contexts['tls'].load_cert_chain(chain, key)


log_file = None


def note(**what):
    with lock:
        log_file.write(json.dumps(what) + '\n')
        log_file.flush()


def main():
    global log_file
    log_file = open(sys.argv[1], 'w')
    servers = [Server('main', '127.0.0.1'), Server('other', '127.0.0.2')]
    if len(sys.argv) > 3:
        contexts['tls'] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        contexts['tls'].load_cert_chain(sys.argv[2], sys.argv[3])
        servers.append(Server('tls', '127.0.0.1', contexts['tls']))
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.1}, daemon=True).start()
    print('ready ' + json.dumps(ports), flush=True)
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(0)


if __name__ == '__main__':
    main()
