"""docs/plugin-author.md does what it says: its commands, one after the other, in a fresh home, by a shell, as a newcomer types them. Only the
port, the index's address and the password of the key are the test's; what the guide leaves to the reader (an edit, Ctrl-C) stands in the test.
GUIDE_TRANSCRIPT=docs/plugin-author-transcript.md writes what each command printed."""
import http.server, os, pathlib, re, shutil, signal, subprocess, threading, urllib.request

import pytest

from conftest import BUILD, ROOT, free_port, wait_until

GUIDE = ROOT / "docs/plugin-author.md"
pytestmark = pytest.mark.skipif(not shutil.which("make") or "asan" in str(BUILD), reason="builds a plugin against the release library")


def blocks():
    """(heading, lines) of each block of commands."""
    heading, out, code = "", [], None
    for line in GUIDE.read_text().splitlines():
        if line.startswith("## "):
            heading = line[3:]
        elif line == "```sh":
            code = []
        elif line == "```" and code is not None:
            out.append((heading, code))
            code = None
        elif code is not None and (text := re.sub(r"\s+# .*|^#.*", "", line).strip()):
            code.append(text)
    return out


class Shell:
    """One terminal for commands that end, and others for those that stay."""

    def __init__(self, home, bin_):
        self.home = home
        self.env = {"HOME": str(home), "PATH": f"{bin_}:{os.environ['PATH']}", "LANG": "C.UTF-8", "TMPDIR": os.environ.get("TMPDIR", "/tmp")}
        self.bash = subprocess.Popen(["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.env, cwd=home)
        self.staying = {}

    def run(self, line):
        self.bash.stdin.write(f"{line} </dev/null\necho \"<<$?>>\"\n")
        self.bash.stdin.flush()
        out = ""
        while not (m := re.search(r"<<(\d+)>>\n$", out)):
            c = self.bash.stdout.readline()
            assert c, out
            out += c
        assert m[1] == "0", f"{line}\n{out}"
        return out[:m.start()]

    def stay(self, kind, line):
        self.end(kind)
        log = open(self.home / f"{kind}.log", "w")
        self.staying[kind] = subprocess.Popen(["bash", "-c", f"exec env {line}" if not line.startswith("dapr") else f"exec {line}"], env=self.env, cwd=self.home,
                                              stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True), log.name

    def output(self, kind):
        return pathlib.Path(self.staying[kind][1]).read_text()

    def end(self, kind):
        """Ctrl-C in its terminal."""
        if kind in self.staying:
            p, log = self.staying.pop(kind)
            os.killpg(p.pid, signal.SIGINT)
            p.wait(30)

    def close(self):
        for kind in list(self.staying):
            self.end(kind)
        self.bash.stdin.close()
        self.bash.wait(10)


@pytest.fixture
def shell(folder):
    bin_ = folder / "bin"
    bin_.mkdir()
    (bin_ / "dapr").symlink_to((BUILD / "bin/daprctl").resolve())
    home = folder / "home"
    home.mkdir()
    s = Shell(home, bin_)
    yield s
    s.close()


def version_two(shell):
    f = shell.home / "mystore/plugin.yaml"
    f.write_text(f.read_text().replace("0.1.0", "0.2.0"))


INTRO = """# A plugin from nothing to a package: the transcript

What the commands of [Writing a plugin](plugin-author.md) printed, run one after the other in an empty home folder by a test
(tests/conformance/test_guide.py), which types faster than a person. A `&` stands for another terminal; paths and ports are as after `make install`.
"""


class Transcript:
    """Collects commands and what they printed; kept when GUIDE_TRANSCRIPT names a file."""

    def __init__(self, *shown):
        self.shown, self.text, self.heading = shown, INTRO, None

    def __call__(self, heading, line, out=""):
        if heading != self.heading:
            self.text += ("```\n" if self.heading else "") + f"\n## {heading}\n\n```\n"
            self.heading = heading
        else:
            self.text += "\n"
        kept = [l.rstrip() for l in out.splitlines() if not re.search(r"% Total|Dload|--:--:--", l)] # curl's progress is for a terminal
        if "--save" in line:
            kept = ["..."] + kept[-2:] # the table stands above
        text = f"$ {line}\n" + "".join(l + "\n" for l in kept if l)
        for real, shown in self.shown:
            text = text.replace(str(real), shown)
        self.text += text

    def keep(self):
        if os.environ.get("GUIDE_TRANSCRIPT"):
            (ROOT / os.environ["GUIDE_TRANSCRIPT"]).write_text(self.text + "```\n")


def test_every_command_of_the_guide_works(shell):
    port, ran = free_port(), []
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("H", (http.server.SimpleHTTPRequestHandler,), {
        "log_message": lambda *a: None, "__init__": lambda s, *a: http.server.SimpleHTTPRequestHandler.__init__(s, *a, directory=str(shell.home / "public"))}))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    index = f"http://127.0.0.1:{web.server_address[1]}/"
    told = Transcript((BUILD.resolve(), "/usr/local"), (shell.home, "~"), (index, "https://plugins.example.com/"), (port, "3500"))

    def healthy():
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/v1.0/healthz").status == 204
    for heading, lines in blocks():
        if heading.startswith("Upgrade"):
            version_two(shell)
        for line in lines:
            line = line.replace("3500", str(port)).replace("https://plugins.example.com/", index)
            if "dapr run " in line:
                shell.stay("run", line)
                wait_until("the sidecar is healthy", healthy)
                told(heading, f"{line} &")
            elif "plugin dev " in line:
                shell.stay("dev", line)
                wait_until("it watches", lambda: "Watching" in shell.output("dev"))
                with open(shell.home / "mystore/main.c", "a") as f:
                    f.write("/* saved */\n")
                wait_until("a save is swapped in", lambda: "build 2" in shell.output("dev"))
                log = shell.staying["dev"][1]
                shell.end("dev")
                told(heading, f"{line} &     # one save, then Ctrl-C", pathlib.Path(log).read_text())
            else:
                line = line.replace("plugin keygen", "plugin keygen --no-password")
                out = shell.run(line)
                told(heading, line, out)
                if line.endswith("/greeting") and not ran:
                    assert '"hello"' in out
                    ran.append(line)
                if "kill -9" in line:
                    wait_until("one restart is counted", lambda: re.search(r"READY +\d+ +1 ", shell.run("dapr plugin list --app-id demo")))
    told.keep()
    assert ran and (shell.home / "plugins.lock").exists() and (shell.home / ".dapr/plugins/state.mystore/0.2.0").exists()
    web.shutdown()
    web.server_close()
