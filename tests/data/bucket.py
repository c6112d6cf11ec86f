"""A server of an empty bucket on this machine: python bucket.py PORT"""

import sys
import threading

from gcp_storage_emulator.handlers import objects

download = objects.download


def download_from_the_end_too(request, response, storage, *arguments, **options):
    """Knows ranges that count from the end, as Google's buckets do; the emulator would send the whole file."""
    headers = request._request_handler.headers
    _, from_the_end, length = headers.get("range", "").partition("bytes=-")
    if from_the_end:
        size = len(storage.get_file(request.params["bucket_name"], request.params["object_id"]))
        headers.replace_header("range", f"bytes={max(size - int(length), 0)}-")
    download(request, response, storage, *arguments, **options)


# The server's table of handlers is made as it is imported.
objects.download = download_from_the_end_too
from gcp_storage_emulator.server import create_server  # noqa: E402

create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="bucket").start()
threading.Event().wait()
