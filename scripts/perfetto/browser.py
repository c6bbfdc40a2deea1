"""A headless browser, driven through a pair of pipes by Chrome's DevTools protocol."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time

NAMES = ["chromium", "chromium-browser", "google-chrome"]
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
           "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
           "--remote-debugging-pipe"]


class Browser:
    """One page of a browser; a context manager, so that its processes end."""

    def __init__(self, profile, width, height):
        program = next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            sys.exit("no browser: scripts/install-browser.sh installs one")
        from_us, self.commands = os.pipe()
        self.answers, to_us = os.pipe()
        # The browser reads commands from descriptor 3 and writes answers to 4.
        command = f'exec "$@" 3<&{from_us} 4>&{to_us}'
        size = f"--window-size={width},{height}"
        self.process = subprocess.Popen(
            ["bash", "-c", command, "browser", program, *OPTIONS, size, f"--user-data-dir={profile}",
             "about:blank"],
            pass_fds=(from_us, to_us), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        os.close(from_us)
        os.close(to_us)
        self.unread, self.sent, self.session = b"", 0, None

    def __enter__(self):
        targets = self.call("Target.getTargets", within=30)["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self.session = attached["sessionId"]
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.commands)
        os.close(self.answers)

    def call(self, method, within=60, **params):
        """The answer to one command of the protocol."""
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + within
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") == self.sent:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _receive(self, deadline, method):
        while b"\0" not in self.unread:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.answers], [], [], left)[0]:
                raise TimeoutError(f"the browser did not answer {method} in time")
            part = os.read(self.answers, 1 << 20)
            if not part:
                raise RuntimeError("the browser ended")
            self.unread += part
        message, self.unread = self.unread.split(b"\0", 1)
        return json.loads(message)

    def open(self, address):
        self.call("Page.navigate", url=address)

    def evaluate(self, script, within=60):
        """The value of a script, once what it promises is there."""
        answer = self.call("Runtime.evaluate", within, expression=script, awaitPromise=True,
                           returnByValue=True)
        if "exceptionDetails" in answer:
            thrown = answer["exceptionDetails"]
            raise RuntimeError(thrown.get("exception", thrown).get("description", thrown["text"]))
        return answer["result"].get("value")

    def until(self, condition, within=60):
        """Waits until a script's value is true."""
        deadline = time.monotonic() + within
        while not self.evaluate(condition):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{condition} did not become true within {within} s")
            time.sleep(0.05)

    def picture(self, path):
        picture = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(picture["data"]))
