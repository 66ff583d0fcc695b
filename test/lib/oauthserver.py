#!/usr/bin/env python3
"""A token endpoint and an API behind it, for tests: oauthserver.py LOG

Prints its port.  What the endpoint does is the last part of its path; each
request is a line of JSON in LOG.  Ends with its standard input.
"""
import base64
import hashlib
import hmac
import json
import sys
import threading
import time
import urllib.parse
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

lock = threading.Lock()
count = 0
valid = set()
refresh = 'refresh-canary-0'


def sigv4_is_right(method, target, headers, body, secret):
    """The signature once more, from the request as it came."""
    parts = dict(p.strip().split('=', 1) for p in headers['Authorization'].split(' ', 1)[1].split(','))
    _, date, region, service, _ = parts['Credential'].split('/')
    path, _, query = target.partition('?')
    quote = lambda s, keep='': urllib.parse.quote(urllib.parse.unquote(s), safe=keep + '-._~')
    pairs = sorted((quote(k), quote(v)) for k, _, v in (p.partition('=') for p in query.split('&') if p))
    # a slash that is encoded stays so
    canonical = '/'.join(quote(p) for p in path.split('/'))
    if service != 's3':
        canonical = urllib.parse.quote(canonical, safe='/-._~')
    names = parts['SignedHeaders'].split(';')
    request = '\n'.join([
        method, canonical, '&'.join(f'{k}={v}' for k, v in pairs),
        ''.join(f'{n}:{" ".join(headers[n].split())}\n' for n in names), ';'.join(names),
        headers.get('x-amz-content-sha256') or hashlib.sha256(body).hexdigest()])
    text = '\n'.join(['AWS4-HMAC-SHA256', headers['X-Amz-Date'], f'{date}/{region}/{service}/aws4_request',
                      hashlib.sha256(request.encode()).hexdigest()])
    key = ('AWS4' + secret).encode()
    for part in (date, region, service, 'aws4_request'):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest() == parts['Signature']


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *args):
        pass

    def note(self, body):
        with lock, open(sys.argv[1], 'a') as log:
            log.write(json.dumps({'method': self.command, 'path': self.path, 'body': body.decode('latin-1'),
                                  'headers': {k.lower(): v for k, v in self.headers.items()}}) + '\n')

    def answer(self, status, body=b'', **headers):
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            headers.setdefault('Content_Type', 'application/json')
        self.send_response(status)
        headers.setdefault('Content_Length', len(body))
        for name, value in headers.items():
            self.send_header(name.replace('_', '-'), str(value))
        self.end_headers()
        self.wfile.write(body)

    def token(self, **more):
        global count
        with lock:
            count += 1
            name = f'access-canary-{count}'
            valid.add(name)
        answer = {'access_token': name, 'token_type': 'Bearer', 'expires_in': 3600}
        answer.update(more)
        return {k: v for k, v in answer.items() if v is not None}

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        self.note(body)
        form = dict(urllib.parse.parse_qsl(body.decode()))
        mode = self.path.split('/')[-1]
        simple = {
            'ok': {}, 'short': {'expires_in': 2}, 'string': {'expires_in': '3600'}, 'none': {'expires_in': None},
            'zero': {'expires_in': 0}, 'negative': {'expires_in': -5}, 'endless_life': {'expires_in': 1e300},
            'odd': {'expires_in': {'a': 1}}, 'untyped': {'token_type': None}, 'lower': {'token_type': 'bearer'},
            'mac': {'token_type': 'mac'}, 'newline': {'access_token': 'access-canary\r\nX-Injected: 1'},
            'space': {'access_token': 'access canary'}, 'empty': {'access_token': ''},
            'missing': {'access_token': None}, 'number': {'access_token': 12345}, 'object': {'access_token': {'a': 'b'}},
            'nul': {'access_token': 'access\0canary'}, 'unasked': {'refresh_token': 'refresh-canary-unasked'}}
        if mode in simple:
            self.answer(200, self.token(**simple[mode]))
        else:
            getattr(self, 'token_' + mode)(form)

    def token_header(self, form):
        expected = base64.b64encode(b'client%3Aid:client-canary+%C3%A4%26%2B').decode()
        if self.headers.get('Authorization') == 'Basic ' + expected and 'client_secret' not in form:
            self.answer(200, self.token())
        else:
            self.answer(401, {'error': 'invalid_client'})

    def token_body(self, form):
        if form.get('client_id') == 'client:id' and form.get('client_secret') == 'client-canary \u00e4&+' \
                and not self.headers.get('Authorization'):
            self.answer(200, self.token())
        else:
            self.answer(401, {'error': 'invalid_client'})

    def token_rotate(self, form):
        global refresh
        if form.get('grant_type') != 'refresh_token' or form.get('refresh_token') != refresh:
            self.answer(400, {'error': 'invalid_grant', 'error_description': 'unknown ' + form.get('refresh_token', '')})
            return
        refresh = f'refresh-canary-{int(refresh.split("-")[-1]) + 1}'
        self.answer(200, self.token(refresh_token=refresh, expires_in=2))

    def token_same(self, form):
        self.answer(200, self.token(refresh_token=form['refresh_token']))

    def token_busy(self, form):
        self.answer(429, {'error': 'slow'}, Retry_After=2)

    def token_busy_date(self, form):
        now = time.time()
        self.answer(429, b'', Date=formatdate(now, usegmt=True), Retry_After=formatdate(now + 30, usegmt=True))

    def token_busy_absurd(self, form):
        self.answer(429, b'', Retry_After=10 ** 15)

    def token_down(self, form):
        self.answer(503, b'<html>' + b'x' * 100000, Content_Type='text/html')

    def token_later(self, form):
        self.answer(400, {'error': 'temporarily_unavailable'})

    def token_first(self, form):
        """A token for a short while, and then nothing."""
        with lock:
            Handler.first = getattr(Handler, 'first', 0) + 1
        if Handler.first == 1:
            self.answer(200, self.token(expires_in=3))
        else:
            self.answer(503)

    def token_html(self, form):
        self.answer(200, b'<html><title>Sign in</title></html>', Content_Type='text/html')

    def token_html404(self, form):
        self.answer(404, b'<html>Nothing\x1b[31m\nhere</html>', Content_Type='text/html')

    def token_huge(self, form):
        self.answer(200, self.token(padding='x' * 1000000))

    def token_endless(self, form):
        self.send_response(200)
        self.send_header('Transfer-Encoding', 'chunked')
        self.end_headers()
        try:
            while True:
                self.wfile.write(b'4000\r\n' + b' ' * 0x4000 + b'\r\n')
        except OSError:
            self.close_connection = True

    def token_deep(self, form):
        self.answer(200, b'{"a":' + b'[' * 20000 + b']' * 20000 + b', "access_token": "x"}')

    def token_utf8(self, form):
        self.answer(200, b'{"access_token": "access-canary", "x": "\xff\xfe"}')

    def token_cut(self, form):
        self.answer(200, json.dumps(self.token()).encode(), Content_Length=100000)
        self.close_connection = True

    def token_echo(self, form):
        """Everything we know, in all ways to write it."""
        secret = form.get('client_secret') or form.get('refresh_token') or form.get('assertion')
        known = self.headers.get('Authorization', '')
        if known.startswith('Basic '):
            secret = urllib.parse.unquote_plus(base64.b64decode(known[6:]).decode().split(':', 1)[1])
        self.answer(401, {
            'error': 'invalid_client',
            'error_description': f'{known} {secret} {urllib.parse.quote(secret)} {urllib.parse.quote_plus(secret)} '
            f'{base64.b64encode(secret.encode()).decode()} {base64.b64encode(b"x" + secret.encode()).decode()} '
            f'{base64.urlsafe_b64encode(b"xy" + secret.encode()).decode()}'})

    def token_echo_html(self, form):
        self.answer(400, b'<p>' + ('&amp;'.join(f'{k}={v}' for k, v in form.items())).encode() + b'</p>',
                    Content_Type='text/html')

    def token_object(self, form):
        self.answer(400, {'error': {'message': 'no such app', 'code': 7}})

    def token_refuse200(self, form):
        self.answer(200, {'error': 'bad_verification_code', 'error_description': 'it is old'})

    def token_slow(self, form):
        time.sleep(20)
        self.answer(200, self.token())

    def token_redirect(self, form):
        self.answer(307, b'', Location=f'http://127.0.0.1:{server.server_port}/token/ok')

    def do_GET(self):
        self.note(b'')
        path = urllib.parse.urlsplit(self.path).path
        known = self.headers.get('Authorization', '')
        if path == '/api/revoke':
            with lock:
                valid.clear()
            self.answer(200)
        elif path == '/api/never':
            self.answer(401, b'never: ' + known.encode())
        elif path.startswith('/sigv4/'):
            right = sigv4_is_right('GET', self.path, self.headers, b'', 'sigv4-canary')
            self.answer(200 if right else 403, b'signed' if right else b'wrong signature')
        elif path == '/api/open':
            self.answer(200, b'open')
        elif known.startswith('Bearer ') and known[7:] in valid:
            self.answer(200, b'hello ' + known[-2:].encode())
        else:
            self.answer(401, b'who?')


server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
sys.stdin.read()
