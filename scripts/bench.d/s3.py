"""A minimal S3 client: what preparing and checking a benchmark's data needs, on the standard library alone."""

import hashlib
import hmac
import http.client
import threading
import time
import urllib.parse
import xml.etree.ElementTree as xml
from concurrent.futures import ThreadPoolExecutor

REGION = "us-east-1"
DEADLINE_S = 120
PARALLEL = 8


class S3:
    """One bucket of a server on 127.0.0.1, path-style over plain HTTP, Signature V4."""

    def __init__(self, port, bucket, access_key, secret_key):
        self.host = f"127.0.0.1:{port}"
        self.bucket, self.access_key, self.secret_key = bucket, access_key, secret_key
        self.local = threading.local()

    def make_bucket(self):
        """Makes the bucket, if it is not there."""
        self._request("PUT", expect=(200, 409))

    def put(self, key, body):
        self._request("PUT", key, body=body)

    def put_all(self, objects):
        """Uploads (key, body) pairs, several at a time."""
        with ThreadPoolExecutor(PARALLEL) as pool:
            for _ in pool.map(lambda pair: self.put(*pair), objects):
                pass

    def delete(self, key):
        self._request("DELETE", key, expect=(204,))

    def size(self, key):
        """Bytes of an object; None if there is none."""
        status, headers, _ = self._request("HEAD", key, expect=(200, 404))
        return int(headers["Content-Length"]) if status == 200 else None

    def read(self, key, offset, length):
        headers = {"range": f"bytes={offset}-{offset + length - 1}"}
        return self._request("GET", key, headers=headers, expect=(206,))[2]

    def get_all(self, keys):
        """(key, body) of each, several at a time."""
        keys = list(keys)
        with ThreadPoolExecutor(PARALLEL) as pool:
            return list(zip(keys, pool.map(lambda key: self._request("GET", key)[2], keys)))

    def metadata(self, key):
        """What a client has said of an object: header → value."""
        _, headers, _ = self._request("HEAD", key)
        return {name: value for name, value in headers.items() if name.lower().startswith("x-amz-meta-")}

    def count(self, prefix):
        """Objects below a prefix, directory markers left out."""
        return len(self.listing(prefix))

    def listing(self, prefix):
        """Keys below a prefix, directory markers left out."""
        found, token = [], {}
        while True:
            query = {"list-type": "2", "prefix": prefix, **token}
            page = xml.fromstring(self._request("GET", query=query)[2])
            names = {"": page.tag.partition("}")[0].lstrip("{")}
            keys = [key.text for key in page.iterfind("Contents/Key", names)]
            found += [key for key in keys if not key.endswith("/")]
            more = page.findtext("NextContinuationToken", namespaces=names)
            if more is None:
                return found
            token = {"continuation-token": more}

    def _request(self, method, key="", *, query=None, body=b"", headers=None, expect=(200,)):
        path = urllib.parse.quote(f"/{self.bucket}/{key}" if key else f"/{self.bucket}")
        query_text = "&".join(
            f"{name}={urllib.parse.quote(value, safe='')}" for name, value in sorted((query or {}).items())
        )
        signed = self._sign(method, path, query_text)
        connection = self._connection()
        target = path + ("?" + query_text if query_text else "")
        connection.request(method, target, body=body or None, headers={**(headers or {}), **signed})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status not in expect:
            raise RuntimeError(f"{method} {target}: {answer.status} {content[:300].decode(errors='replace')}")
        return answer.status, answer.headers, content

    def _connection(self):
        # http.client opens a closed connection again by itself.
        if not hasattr(self.local, "connection"):
            self.local.connection = http.client.HTTPConnection(self.host, timeout=DEADLINE_S)
        return self.local.connection

    def _sign(self, method, path, query):
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        scope = f"{now[:8]}/{REGION}/s3/aws4_request"
        headers = {"host": self.host, "x-amz-content-sha256": "UNSIGNED-PAYLOAD", "x-amz-date": now}
        names = ";".join(headers)
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        request = "\n".join([method, path, query, lines, names, "UNSIGNED-PAYLOAD"])
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = f"AWS4{self.secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.new(key, text.encode(), "sha256").hexdigest()
        credential = f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}"
        return {**headers, "authorization": f"{credential}, SignedHeaders={names}, Signature={signature}"}
