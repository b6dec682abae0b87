"""daprctl: the commands that people and scripts use."""
import fcntl, json, os, pty, re, select, shutil, signal, socket, struct, subprocess, sys, termios, time

import pytest

from conftest import BUILD, component, free_port, wait_until

CTL = str(BUILD / "bin/daprctl")
SLEEP = 86000  # and a few more: numbers by which a test knows its own processes
ME = os.getpid()  # part of app ids, so that runs side by side do not find each other's


@pytest.fixture
def home(folder):
    h = folder / "home"
    h.mkdir()
    return dict(os.environ, HOME=str(h), NO_COLOR="1")


def ctl(env, *args, **kw):
    return subprocess.run([CTL, *args], env=env, capture_output=True, text=True, timeout=60, **kw)


class Run:
    """A `run` in the background. Fails the test when it must be killed."""

    def __init__(self, env, *args, cwd=None, stdout=None):
        self.path = f"{env['HOME']}/run-{time.monotonic_ns()}.log"
        self.out = open(self.path, "w+")
        self.proc = subprocess.Popen([CTL, "run", *args], env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=stdout or self.out, stderr=self.out,
                                     start_new_session=True)

    def text(self):
        return open(self.path, errors="replace").read()

    def until(self, *what):
        def there():
            assert self.proc.poll() is None or all(w in self.text() for w in what), self.text()
            return all(w in self.text() for w in what)
        wait_until(f"{what} in the output", there, 30)
        return self

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        stuck = self.proc.poll() is None
        if stuck:
            self.proc.send_signal(signal.SIGTERM)
            try:
                self.proc.wait(30)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait()
                assert kind, "run did not end by SIGTERM:\n" + self.text()
        self.out.close()


def processes(*words):
    """pids of live processes whose command line has all the words."""
    found = []
    for d in os.listdir("/proc"):
        if d.isdigit():
            try:
                line = open(f"/proc/{d}/cmdline").read().replace("\0", " ")
                if all(w in line for w in words):
                    found.append(int(d))
            except OSError:
                pass
    return found


def sleeper():
    """A number of seconds that no other process sleeps for."""
    return str(SLEEP + free_port())


# ---- small commands ----

def test_help_everywhere(home):
    r = ctl(home, "--help")
    assert r.returncode == 0 and "plugin list" in r.stdout and ctl(home).stdout == r.stdout
    for c in ("init", "run", "list", "stop", "version", "completion", "uninstall"):
        r = ctl(home, c, "--help")
        assert r.returncode == 0 and "dapr" in r.stdout, c
        assert ctl(home, "help", c).stdout == r.stdout
    for c in ("list", "info", "logs", "restart", "new"):
        assert ctl(home, "plugin", c, "--help").returncode == 0
    names = [line[2:22].strip() for line in ctl(home, "--help").stdout.split("Commands\n")[1].split("\n\n")[0].splitlines()]
    assert len(names) > 45
    for c in names:  # every command shows how it is used
        text = ctl(home, *c.split(), "--help").stdout
        assert "Usage" in text and "Examples" in text and f"dapr {c.split()[0]}" in text.split("Examples")[1], c
    r = ctl(home, "plugin")
    assert r.returncode == 0 and "plugin new" in r.stdout and "completion" not in r.stdout


@pytest.mark.parametrize("args, said", [
    (["rnu"], "rnu"), (["run", "--app-prt", "1"], "app-prt"), (["run", "--app-port", "many"], "many"), (["list", "-o", "xml"], "xml"),
    (["version", "-o", "xml"], "xml"), (["stop"], "stop --app-id"), (["plugin", "inof"], "inof"), (["plugin", "info"], "Say which"),
    (["plugin", "info", "state.nothing"], "state.nothing"), (["plugin", "logs", "store"], "--app-id"), (["plugin", "new", "gardens", "x"], "kinds"),
    (["plugin", "new", "state", "No/Good"], "No/Good"), (["plugin", "list", "--app-id", "nobody"], "nobody"), (["completion"], "bash"),
    (["completion", "tcsh"], "bash"), (["stop", "nobody"], "nobody"), (["stop", "-f", "no.yaml"], "no.yaml"), (["list", "-k"], "Kubernetes"),
    (["init", "-k"], "Kubernetes"), (["--app-id"], "--app-id"), (["run", "-f", "/no/such.yaml"], "/no/such.yaml")])
def test_wrong_use_is_explained(home, args, said):
    r = ctl(home, *args)
    assert r.returncode == 1 and said in r.stderr, r.stdout + r.stderr
    r = ctl(home, *args, "--log-as-json")
    if args[0] not in ("--app-id", "rnu") and args[:2] != ["plugin", "inof"]:
        assert r.returncode == 1 and json.loads(r.stderr)["status"] == "failure"


def test_version_asks_the_runtime(home, folder):
    assert "Runtime version: 1.17" in ctl(home, "version").stdout
    assert json.loads(ctl(home, "version", "-o", "json").stdout)["Runtime version"].startswith("1.17")
    assert ctl(home, "--version").stdout == ctl(home, "-v").stdout == ctl(home, "version").stdout
    alone = shutil.copy(CTL, folder / "dapr")
    r = subprocess.run([alone, "version"], env=dict(home, PATH="/usr/bin"), capture_output=True, text=True)
    assert r.returncode == 0 and "Runtime version: n/a" in r.stdout


def test_global_flags_stand_before_or_after_the_command(home, folder):
    for args in (["--runtime-path", str(folder / "a"), "init"], [f"--runtime-path={folder / 'b'}", "init", "--slim"], ["init", "--runtime-path", str(folder / "c")]):
        assert ctl(home, *args).returncode == 0
    for n in "abc":
        assert (folder / n / ".dapr/components/statestore.yaml").exists()
    assert json.loads(ctl(home, "--log-as-json", "init").stdout.splitlines()[0])["status"] == "pending"


def test_init_writes_resources_once_and_uninstall_removes_them(home):
    assert ctl(home, "init", "--slim").returncode == 0
    store = f"{home['HOME']}/.dapr/components/statestore.yaml"
    assert "state.sqlite" in open(store).read()
    open(store, "a").write("# mine\n")
    assert ctl(home, "init").returncode == 0 and "# mine" in open(store).read()
    assert ctl(home, "init", "--force").returncode == 0 and "# mine" not in open(store).read()
    assert os.path.realpath(f"{home['HOME']}/.dapr/bin/daprd") == str(BUILD / "bin/daprd")
    assert ctl(home, "uninstall").returncode == 0
    assert os.path.exists(store) and not os.path.exists(f"{home['HOME']}/.dapr/bin")
    assert ctl(home, "uninstall", "--all").returncode == 0 and not os.path.exists(f"{home['HOME']}/.dapr")
    assert (BUILD / "bin/daprd").exists(), "what a link points to stays"


def test_init_takes_the_flags_of_the_reference(home):
    r = ctl(home, "init", "--slim", "--runtime-version", "1.17.1", "--dashboard-version", "0.15.0", "--container-runtime", "podman", "--network", "n",
            "--image-registry", "r", "--scheduler-volume", "v", "--timeout", "5")
    assert r.returncode == 0, r.stderr
    assert ctl(home, "uninstall", "--container-runtime", "podman", "--network", "n", "--all").returncode == 0


def test_init_where_nothing_can_be_written(home, folder):
    (folder / "file").write_text("")
    r = ctl(home, "init", "--runtime-path", str(folder / "file"))
    assert r.returncode == 1 and "folder" in r.stderr
    r = ctl({k: v for k, v in home.items() if k != "HOME"}, "init")
    assert r.returncode == 1 and "HOME" in r.stderr


def candidates(env, *words):
    r = ctl(env, "completion", "candidates", "--", *words)
    assert r.returncode == 0, r.stderr
    return [line.split("\t")[0] for line in r.stdout.splitlines()]


def test_completion_knows_commands_flags_and_what_there_is(home, daprd):
    assert candidates(home, "ver") == ["version"] and candidates(home, "pl") == ["plugin"]
    assert candidates(home, "plugin", "lo") == ["logs", "lock"] and candidates(home, "plugin", "index", "s") == ["sign"]
    assert candidates(home, "plugin", "trust", "") == ["add", "list", "remove"] and candidates(home, "subscription", "") == ["list", "pause", "resume"]
    assert "--app-id" in candidates(home, "run", "--app-i") and candidates(home, "plugin", "logs", "--fol") == ["--follow"]
    assert candidates(home, "run", "--", "--app-i") == [":command"] and candidates(home, "plugin", "install", "") == [":files"]
    assert candidates(home, "plugin", "install", "--index", "") == [":files"] and candidates(home, "nonsense", "") == []
    assert candidates(home, "list", "-o", "") == ["json", "table"] and candidates(home, "list", "--output=j") == ["--output=json"]
    assert candidates(home, "list", "--output", "=", "j") == ["json"] and candidates(home, "completion", "") == ["bash", "zsh", "fish"]
    assert "state.in-memory" in candidates(home, "plugin", "remove", "state.")
    me = f"complete{os.getpid()}"
    daprd([component("thestore", "state.in-memory")], app_id=me)
    assert me in candidates(home, "plugin", "logs", "--app-id", "compl")
    assert candidates(home, "plugin", "logs", "--app-id", me, "the") == ["thestore"]
    assert ctl(home, "completion", "tcsh").returncode == 1


@pytest.mark.parametrize("shell, argv", [("bash", ["bash", "--norc", "-i"]), ("zsh", ["zsh", "-f", "-i"])])
def test_completion_in_a_shell(home, folder, shell, argv):
    """What a person gets who types and presses TAB: the whole line is then given to echo."""
    if not shutil.which(shell):
        pytest.skip(f"needs {shell}")
    (folder / "somewhere.tar").write_text("")
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(argv[0], argv, {**home, "TERM": "dumb", "PS1": "", "PATH": f"{BUILD}/bin:{os.environ['PATH']}"})
    seen = b""

    def until(mark):
        nonlocal seen
        deadline = time.monotonic() + 20
        while mark not in seen:
            assert time.monotonic() < deadline, seen[-2000:]
            if select.select([fd], [], [], 0.2)[0]:
                seen += os.read(fd, 4096)

    def typed(text, n=[0]):
        n[0] += 1
        os.write(fd, text.encode() + b"\t")
        os.write(fd, b"\x01echo %d:\x05:\n" % n[0])
        mark = b"\n%d:" % n[0]
        until(mark)
        until(b":\r\n")
        line = seen.replace(b"\r", b"").split(mark)[-1].split(b"\n")[0].decode()
        return line.rstrip(":").rstrip()
    try:
        setup = "autoload -Uz compinit; compinit -u -D; bindkey -e; unsetopt prompt_cr prompt_sp;" if shell == "zsh" else ""
        os.write(fd, f"{setup} source <(daprctl completion {shell}); echo re''ady\n".encode())
        until(b"ready\r\n")
        assert typed("daprctl vers") == "daprctl version"
        assert typed("daprctl plugin inst") == "daprctl plugin install"
        assert typed("daprctl plugin logs --fol") == "daprctl plugin logs --follow"
        assert typed("daprctl plugin trust li") == "daprctl plugin trust list"
        assert typed("daprctl plugin verify state.in-m") == "daprctl plugin verify state.in-memory"
        assert typed("daprctl plugin install some") == "daprctl plugin install somewhere.tar"
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(fd)


@pytest.mark.skipif(not shutil.which("fish"), reason="needs fish")
def test_completion_in_fish(home, folder):
    """What fish offers at the end of a line; it has a command for that."""
    (folder / "somewhere.tar").write_text("")

    def offers(line):
        r = subprocess.run(["fish", "--no-config", "-c", f"daprctl completion fish | source; complete -C {line!r}"], capture_output=True, text=True,
                           env={**home, "PATH": f"{BUILD}/bin:{os.environ['PATH']}"}, cwd=folder, timeout=30)
        assert r.returncode == 0 and not r.stderr, r.stderr
        return [x.split("\t")[0] for x in r.stdout.splitlines()]
    assert offers("daprctl vers") == ["version"] and offers("daprctl plugin inst") == ["install"]
    assert offers("daprctl plugin logs --fol") == ["--follow"] and offers("daprctl list -o ") == ["json", "table"]
    assert offers("daprctl list --output=j") == ["--output=json"] and offers("daprctl plugin verify state.in-m") == ["state.in-memory"]
    assert offers("daprctl plugin install some") == ["somewhere.tar"]
    assert "daprd" in offers("daprctl run --app-id x -- dap") # programs, and what these take
    assert offers("daprctl run --app-id x -- daprctl plugin inst") == ["install"]


# ---- colours ----

def on_terminal(env, *args):
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    p = subprocess.Popen([CTL, *args], env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 4096):
            seen += piece
    except OSError: # nobody holds the other end any more
        pass
    p.wait(30)
    os.close(ours)
    return seen


@pytest.mark.parametrize("args, has_colour", [(["--help"], True), (["version", "--help"], True), (["plugin", "list"], True), (["stop", "nobody"], False)])
def test_no_color_is_heard_and_text_stays_the_same(home, args, has_colour):
    coloured = {k: v for k, v in home.items() if k != "NO_COLOR"}
    plain = on_terminal({**coloured, "NO_COLOR": "1"}, *args)
    assert plain and b"\x1b" not in plain
    bright = on_terminal(coloured, *args)
    assert re.sub(rb"\x1b\[[0-9;]*m", b"", bright) == plain
    assert on_terminal({**coloured, "NO_COLOR": ""}, *args) == bright, "empty means nothing"
    assert (b"\x1b[" in bright) == has_colour
    assert b"\x1b" not in subprocess.run([CTL, *args], env=coloured, capture_output=True).stdout, "no terminal"


# ---- run ----

def test_run_gives_the_app_its_environment_and_takes_its_exit_code(home):
    code = "import os,sys,urllib.request as u; p=os.environ['DAPR_HTTP_PORT']; print('health', u.urlopen(f'http://127.0.0.1:{p}/v1.0/healthz').status, os.environ['APP_ID']); sys.exit(7)"
    r = ctl(home, "run", "--app-id", f"envapp-{ME}", "--", sys.executable, "-c", code)
    assert r.returncode == 7 and f"== APP == health 204 envapp-{ME}" in r.stdout, r.stdout + r.stderr
    assert "Exited Dapr successfully" in r.stdout


def test_run_after_init_has_a_store_that_keeps(home):
    """What the README shows first."""
    assert ctl(home, "init").returncode == 0
    code = "import os,urllib.request as u; b=f'http://127.0.0.1:{os.environ[\"DAPR_HTTP_PORT\"]}/v1.0/state/statestore'; " \
           "print('before', u.urlopen(b + '/k').read()); u.urlopen(u.Request(b, b'[{\"key\":\"k\",\"value\":1}]', {'content-type': 'application/json'}))"
    for before in ("b''", "b'1'"):
        r = ctl(home, "run", "--app-id", f"readme-{ME}", "--", sys.executable, "-c", code)
        assert r.returncode == 0 and f"before {before}" in r.stdout, r.stdout + r.stderr


def test_run_takes_the_command_without_a_double_dash(home):
    r = ctl(home, "run", "--app-id", f"plain-{ME}", "echo", "said", "it")
    assert r.returncode == 0 and "== APP == said it" in r.stdout


def test_run_reports_a_command_that_cannot_start(home):
    r = ctl(home, "run", "--app-id", f"nocmd-{ME}", "--", "no-such-command-here")
    assert r.returncode == 1 and "no-such-command-here" in r.stderr and "Exited Dapr successfully" in r.stdout
    assert not processes(f"--app-id nocmd-{ME}")


def test_run_reports_a_sidecar_that_cannot_start(home, folder):
    bad = folder / "resources"
    bad.mkdir()
    (bad / "c.yaml").write_text(component("store", "state.nothing"))
    r = ctl(home, "run", "--app-id", f"badres-{ME}", "--resources-path", str(bad), "--", "sleep", "60")
    assert r.returncode == 1 and "daprd process exited" in r.stderr and "state.nothing" in r.stdout + r.stderr
    r = ctl(home, "run", "--app-id", f"nores-{ME}", "--resources-path", str(folder / "missing"), "--", "sleep", "60")
    assert r.returncode == 1 and "missing" in r.stderr


def test_run_refuses_a_port_in_use_and_a_wrong_size(home):
    with socket.socket() as s:
        s.bind(("", 0))
        s.listen()
        port = str(s.getsockname()[1])
        r = ctl(home, "run", "--app-id", f"taken-{ME}", "--dapr-http-port", port)
        assert r.returncode == 1 and f"Port {port} is not available" in r.stderr
    r = ctl(home, "run", "--app-id", f"same-{ME}", "--dapr-http-port", port, "--dapr-grpc-port", port)
    assert r.returncode == 1 and "not available" in r.stderr
    r = ctl(home, "run", "--app-id", f"size-{ME}", "--max-body-size", "big")
    assert r.returncode == 1 and "big" in r.stderr


def test_run_with_an_app_port_starts_both_at_once(home):
    port = free_port()
    code = f"import http.server as h; h.HTTPServer(('127.0.0.1', {port}), h.SimpleHTTPRequestHandler).serve_forever()"
    with Run(home, "--app-id", f"ported-{ME}", "--app-port", str(port), "--", sys.executable, "-c", code) as r:
        r.until("You're up and running! Both")
    r = ctl(home, "run", "--app-id", f"dies-{ME}", "--app-port", str(free_port()), "--", "sh", "-c", "exit 9")
    assert r.returncode == 9


def test_run_over_unix_sockets(home, folder):
    (folder / "s").mkdir()
    with Run(home, "--app-id", f"sock-{ME}", "--unix-domain-socket", "s", "--", "sh", "-c", "echo port=$DAPR_HTTP_PORT.; sleep 60", cwd=folder) as r:
        r.until("You're up and running!", "== APP == port=.")
        assert (folder / f"s/dapr-sock-{ME}-http.socket").exists()
        row = next(x for x in json.loads(ctl(home, "list", "-o", "json").stdout) if x["appId"] == f"sock-{ME}")
        assert row["cliPid"] == r.proc.pid and row["appPid"] > 0
        assert ctl(home, "stop", "-a", f"sock-{ME}").returncode == 0 and r.proc.wait(20) == 0
    assert not (folder / f"s/dapr-sock-{ME}-http.socket").exists()


def test_run_ends_what_the_app_has_started(home):
    one, two = sleeper(), sleeper()
    with Run(home, "--app-id", f"tree-{ME}", "--", "sh", "-c", f"sh -c 'sleep {one}; :' & sleep {two}; :") as r:
        r.until("You're up and running!")
        wait_until("both sleep", lambda: processes("sleep", one) and processes("sleep", two))
        assert ctl(home, "stop", "--app-id", f"tree-{ME}").returncode == 0
        assert r.proc.wait(20) == 0
    assert not processes("sleep", one) and not processes("sleep", two)
    r = ctl(home, "run", "--app-id", f"left-{ME}", "--", "sh", "-c", f"sleep {one} & exit 3")
    assert r.returncode == 3 and not processes("sleep", one)


def test_signals_reach_the_app_and_a_second_one_kills(home):
    with Run(home, "--app-id", f"polite-{ME}", "--", "sh", "-c", "trap 'echo got INT; exit 0' INT; while :; do sleep 0.1; done") as r:
        r.until("You're up and running!")
        r.proc.send_signal(signal.SIGINT)
        assert r.proc.wait(20) == 0 and "got INT" in r.text() and "shutting down" in r.text()
    with Run(home, "--app-id", f"stubborn-{ME}", "--", "sh", "-c", "trap '' INT TERM; echo deaf; while :; do sleep 0.1; done") as r:
        r.until("deaf", "You're up and running!")
        r.proc.send_signal(signal.SIGINT)
        r.until("shutting down")
        time.sleep(0.7)  # a second signal within half a second counts as the first
        r.proc.send_signal(signal.SIGINT)
        assert r.proc.wait(10) == 0
    assert not processes("echo deaf") and not processes(f"--app-id stubborn-{ME}")


def test_run_ends_when_the_sidecar_is_lost(home):
    number = sleeper()
    with Run(home, "--app-id", f"lost-{ME}", "--", "sleep", number) as r:
        r.until("You're up and running!")
        os.kill(processes("daprd", f"--app-id lost-{ME}")[0], signal.SIGKILL)
        assert r.proc.wait(20) == 1 and "daprd process was ended by signal 9" in r.text()
    assert not processes("sleep", number)


def test_children_end_with_a_killed_run(home):
    number = sleeper()
    with Run(home, "--app-id", f"orphan-{ME}", "--", "sleep", number) as r:
        r.until("You're up and running!")
        r.proc.kill()
        r.proc.wait()
        wait_until("app and sidecar are gone", lambda: not processes("sleep", number) and not processes(f"--app-id orphan-{ME}"))


def test_a_reader_that_does_not_read_cannot_hold_run_up(home):
    ours, theirs = os.pipe()
    with Run(home, "--app-id", f"stuck-{ME}", "--log-level", "error", "--", "sh", "-c", "while :; do echo 0123456789; done", stdout=theirs) as r:
        os.close(theirs)
        time.sleep(1.5)  # nobody reads: the pipe fills
        before = time.monotonic()
        r.proc.send_signal(signal.SIGTERM)
        assert r.proc.wait(25) == 0 and time.monotonic() - before < 15
    os.close(ours)


def test_a_reader_that_goes_away_ends_run(home):
    ours, theirs = os.pipe()
    with Run(home, "--app-id", f"pipe-{ME}", "--log-level", "error", "--", "sh", "-c", "while :; do echo tick; sleep 0.05; done", stdout=theirs) as r:
        os.close(theirs)
        assert "Starting" in os.read(ours, 4096).decode()
        wait_until("the app runs", lambda: "tick" in os.read(ours, 4096).decode())
        os.close(ours)
        assert r.proc.wait(10) == 0


def test_all_output_of_a_fast_app_arrives(home):
    r = ctl(home, "run", "--app-id", f"fast-{ME}", "--log-level", "error", "--", "sh", "-c", "seq 1 50000; printf last")
    lines = [line[len("== APP == "):] for line in r.stdout.splitlines() if line.startswith("== APP == ")]
    assert lines == [str(i) for i in range(1, 50001)] + ["last"]


def test_run_logs_as_json(home):
    r = ctl(home, "run", "--app-id", f"json-{ME}", "--log-as-json", "--", "true")
    lines = [json.loads(x) for x in r.stdout.splitlines() if x]
    assert r.returncode == 0 and any("You're up and running!" in x["msg"] for x in lines) and any(x.get("app_id") == f"json-{ME}" for x in lines)


class Terminal:
    """A command on a terminal of its own, as in tmux."""

    def __init__(self, env, *argv):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(argv[0], argv, env)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.text = ""

    def until(self, what, limit=20):
        end = time.monotonic() + limit
        while what not in self.text:
            assert time.monotonic() < end, f"no {what!r} in\n{self.text}"
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    assert what in self.text, self.text
        return self

    def key(self, text):
        os.write(self.fd, text.encode())

    def wait(self, limit=20):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if select.select([self.fd], [], [], 0.05)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    pass
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
        raise AssertionError("it does not end:\n" + self.text)


def test_run_on_a_terminal(home):
    env = {k: v for k, v in home.items() if k != "NO_COLOR"}
    code = "import sys,signal,time; print('terminals', sys.stdin.isatty(), sys.stdout.isatty(), sys.stderr.isatty())\n" \
           "print('read', input())\ntry:\n  time.sleep(60)\nexcept KeyboardInterrupt: print('got Ctrl-C')"
    t = Terminal(env, CTL, "run", "--app-id", f"tty-{ME}", "--", sys.executable, "-c", code)
    t.until("terminals True True True").until("You're up and running!")
    t.key("hello\n")
    t.until("read hello")
    t.key("\x03")
    assert t.wait() == 0
    assert "\x1b[94m== APP == \x1b[0m" in t.text and "got Ctrl-C" in t.text and "Exited App successfully" in t.text
    assert "level=info" not in t.text and "\x1b[36mINFO\x1b[0m" in t.text, "the sidecar's lines are coloured, too"


def test_a_closed_terminal_ends_run(home):
    number = sleeper()
    t = Terminal(home, CTL, "run", "--app-id", f"hangup-{ME}", "--", "sleep", number)
    t.until("You're up and running!")
    os.close(t.fd)
    wait_until("run, app and sidecar are gone", lambda: os.waitpid(t.pid, os.WNOHANG)[0] == t.pid, 30)
    assert not processes("sleep", number) and not processes(f"--app-id hangup-{ME}")


# ---- list, stop ----

def test_run_list_stop(home):
    port = free_port()
    with Run(home, "--app-id", f"listed-{ME}", "--dapr-http-port", str(port), "--", "sleep", "60") as p:
        def row():
            return next((r for r in json.loads(ctl(home, "list", "-o", "json").stdout) if r["appId"] == f"listed-{ME}"), None)
        r = wait_until("it is listed with its app", lambda: (row() or {}).get("appPid") and row())
        assert r["httpPort"] == port and r["cliPid"] == p.proc.pid and r["command"].startswith("sleep")
        assert f"listed-{ME}" in ctl(home, "list").stdout and "APP ID" in ctl(home, "list").stdout
        assert f"- appId: \"listed-{ME}\"" in ctl(home, "list", "-o", "yaml").stdout
        assert ctl(home, "stop", "--app-id", f"listed-{ME}").returncode == 0
        assert row() is None, "stop waits until it is gone"
        assert p.proc.wait(5) == 0
    assert ctl(home, "stop", "--app-id", f"listed-{ME}").returncode == 1


def test_stop_of_a_sidecar_that_was_started_by_hand(home, daprd):
    a, b = daprd(app_id=f"hand1-{ME}"), daprd(app_id=f"hand2-{ME}")
    other = subprocess.Popen(["sleep", "60"])
    try:
        assert a.request("PUT", "/v1.0/metadata/cliPID", str(other.pid), {"content-type": "text/plain"}).status == 204
        r = ctl(home, "stop", f"hand1-{ME}", "-a", f"hand2-{ME}")
        assert r.returncode == 0 and r.stdout.count("app stopped successfully") == 2
        assert a.wait_exit() == 0 and b.wait_exit() == 0
        assert other.poll() is None, "a process that did not start the sidecar is left alone"
    finally:
        other.kill()
        other.wait()


# ---- run files ----

def run_file(folder, apps, **more):
    for a in apps:
        (folder / a["appDirPath"]).mkdir(exist_ok=True)
    (folder / "dapr.yaml").write_text(json.dumps({"version": 1, "apps": apps, **more}))
    return str(folder / "dapr.yaml")


def test_run_file_starts_several_apps(home, folder):
    path = run_file(folder, [{"appDirPath": "one", "command": ["sh", "-c", "echo $APP_ID $COLOR; pwd; printf '\\033[31mred\\033[0m\\n'; sleep 60"]},
                             {"appDirPath": "./two/", "appID": "second", "command": ["sh", "-c", "echo $APP_ID $COLOR; sleep 60"], "env": {"COLOR": "blue"}}],
                    name=f"pair-{ME}", common={"env": {"COLOR": "red"}, "daprdLogDestination": "fileAndConsole"})
    with Run(home, "-f", str(folder), "--app-port", "1") as r:
        r.until("== APP - one == one red", "== APP - second == second blue", f"== APP - one == {folder}/one", "app_id=second")
        assert "flags are ignored when using --run-file" in r.text() and "app-port" in r.text()
        log = next((folder / "one/.dapr/logs").glob("one_app_*.log"))
        wait_until("the file has the line without colours", lambda: "\nred\n" in log.read_text())
        assert "dapr initialized" in next((folder / "two/.dapr/logs").glob("second_daprd_*.log")).read_text()
        rows = wait_until("both are listed", lambda: (lambda x: len(x) == 2 and x)([x for x in json.loads(ctl(home, "list", "-o", "json").stdout) if x["runTemplateName"] == f"pair-{ME}"]))
        assert {x["appLogPath"].split("/")[-1].split("_")[0] for x in rows} == {"one", "second"} and rows[0]["runTemplatePath"] == path
        assert ctl(home, "stop", "-f", path).returncode == 0
        assert r.proc.wait(5) == 0


def test_stopping_one_app_of_a_run_file_leaves_the_other(home, folder):
    a, b = f"a-{ME}", f"b-{ME}"
    run_file(folder, [{"appDirPath": "a", "appID": a, "command": ["sleep", "60"]}, {"appDirPath": "b", "appID": b, "command": ["sleep", "60"]}])
    with Run(home, "-f", str(folder)) as r:
        r.until(f'Started Dapr with app id "{a}"', f'Started Dapr with app id "{b}"')
        assert ctl(home, "stop", a).returncode == 0
        r.until("Exited Dapr successfully")
        ids = [x["appId"] for x in json.loads(ctl(home, "list", "-o", "json").stdout)]
        assert r.proc.poll() is None and a not in ids and b in ids
        assert ctl(home, "stop", b).returncode == 0 and r.proc.wait(20) == 0


def test_run_file_stays_when_its_apps_have_ended(home, folder):
    run_file(folder, [{"appDirPath": "a", "command": ["true"]}, {"appDirPath": "b", "command": ["sh", "-c", "exit 4"]}])
    with Run(home, "-f", str(folder)) as r:
        r.until("Exited App successfully", "exited with error code: 4")
        assert {x["appId"] for x in json.loads(ctl(home, "list", "-o", "json").stdout)} >= {"a", "b"} and r.proc.poll() is None
        assert ctl(home, "stop", "-f", str(folder)).returncode == 0 and r.proc.wait(20) == 0


def test_run_file_from_standard_input(home, folder):
    text = json.dumps({"version": 1, "apps": [{"appDirPath": str(folder), "appID": "piped", "command": ["sh", "-c", "echo from stdin; echo 'to stderr' >&2"]}]})
    p = subprocess.Popen([CTL, "run", "-f", "-"], env=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    p.stdin.write(text)
    p.stdin.close()
    seen, wanted = [], {"== APP - piped == from stdin\n", "== APP - piped == to stderr\n"}
    while wanted - set(seen) and (line := p.stdout.readline()):
        seen.append(line)
    p.terminate()
    p.stdout.read()
    assert not wanted - set(seen) and p.wait(20) == 0, seen
    p.stdout.close()


def test_run_file_finds_resources_where_the_reference_does(home, folder):
    for place in ("own", "a/.dapr/resources", "shared"):
        (folder / place).mkdir(parents=True)
        (folder / place / "c.yaml").write_text(component(place.split("/")[-1], "state.in-memory"))
    code = "import os,json,urllib.request as u; p=os.environ['DAPR_HTTP_PORT']; print('has', [c['name'] for c in json.load(u.urlopen(f'http://127.0.0.1:{p}/v1.0/metadata'))['components']])"
    cmd = [sys.executable, "-c", code]
    run_file(folder, [{"appDirPath": "a", "command": cmd}, {"appDirPath": "b", "command": cmd},
                      {"appDirPath": "c", "resourcesPaths": ["../own"], "command": cmd}], common={"resourcesPaths": ["./shared"]})
    with Run(home, "-f", str(folder)) as r:
        r.until("a == has ['resources']", "b == has ['shared']", "c == has ['own']")


@pytest.mark.parametrize("text, said", [
    ("version: 1\napps:\n- appPort: many\n  appDirPath: .\n", "dapr.yaml:3"), ("version: 2\napps: []\n", "dapr.yaml:1"), ("apps: []\n", "version"),
    ("version: 1\n", "No apps"), ("version: 1\napps:\n- appID: x\n", "appDirPath"), ("version: 1\napps:\n- appDirPath: ./gone\n", "gone"),
    ("version: 1\napps:\n- appDirPath: .\n  appLogDestination: printer\n", "dapr.yaml:4"), ("version: 1\napps:\n- appDirPath: .\n  command: ls\n", "list of words"),
    ("version: 1\napps:\n- appDirPath: .\n  env: [A]\n", "env"), ("version: 1\napps:\n- appDirPath: .\n  appSSL: maybe\n", "true or false"),
    ("version: [1\n", "dapr.yaml:"), ("", "version")])
def test_a_wrong_run_file_names_its_place(home, folder, text, said):
    (folder / "dapr.yaml").write_text(text)
    r = ctl(home, "run", "-f", str(folder / "dapr.yaml"))
    assert r.returncode == 1 and said in r.stderr, r.stderr


# ---- plugins ----

def test_plugin_list_and_info(home, daprd, folder):
    d = daprd([component("store", "state.in-memory"), component("db", "state.sqlite", [("connectionString", str(folder / "x.db"))])], app_id=f"plugged-{ME}",
              env={"HOME": home["HOME"]})
    d.request("GET", "/v1.0/state/store/k")
    rows = {r["name"]: r for r in json.loads(ctl(home, "plugin", "list", "--app-id", f"plugged-{ME}", "-o", "json").stdout)}
    assert rows["store"]["state"] == "READY" and rows["store"]["pid"] in d.children() and rows["store"]["calls"] >= 1
    assert rows["db"]["type"] == "state.sqlite" and rows["db"]["backend"] == "reachable" and rows["db"]["uptimeSeconds"] >= 0
    table = ctl(home, "plugin", "list", "--app-id", f"plugged-{ME}").stdout
    assert "READY" in table and table.startswith("NAME") and "LAST ERROR" not in table
    assert f"plugged-{ME}" in ctl(home, "plugin", "list", "--all").stdout
    text = ctl(home, "plugin", "info", "db", "--app-id", f"plugged-{ME}").stdout
    assert "state.sqlite" in text and f"connectionString = {folder}/x.db" in text and "busyTimeout" in text
    info = json.loads(ctl(home, "plugin", "info", "state.in-memory", "--app-id", f"plugged-{ME}", "-o", "json").stdout)
    assert info["component"]["name"] == "store" and info["plugin"]["name"] == "state.in-memory"
    r = ctl(home, "plugin", "info", "nothing", "--app-id", f"plugged-{ME}")
    assert r.returncode == 1 and "nothing" in r.stderr


def test_plugin_list_shows_what_is_installed(home, folder):
    installed = json.loads(ctl(home, "plugin", "list", "-o", "json").stdout)
    assert {"state.sqlite", "state.sqlite3", "secretstores.local.env"} <= {r["type"] for r in installed}
    fields = {f["name"] for f in json.loads(ctl(home, "plugin", "info", "STATE.SQLITE3", "-o", "json").stdout)["metadata"]}
    assert "connectionString" in fields
    (folder / "plugins/state.broken").mkdir(parents=True)
    (folder / "plugins/state.broken/plugin.yaml").write_text("name: [")
    r = ctl(home, "plugin", "list", "--plugins-path", str(folder / "plugins"))
    assert r.returncode == 0 and "state.broken" in r.stdout and "plugin.yaml:" in r.stdout


def test_plugin_logs(home, daprd, folder):
    d = daprd([component("db", "state.sqlite", [("connectionString", str(folder / "x.db"))])], app_id=f"logging-{ME}")
    lines = ctl(home, "plugin", "logs", "db", "-a", f"logging-{ME}").stdout.splitlines()
    assert any("migration" in x for x in lines) and len(lines) >= 2
    assert ctl(home, "plugin", "logs", "db", "-a", f"logging-{ME}", "--tail", "1").stdout.splitlines() == lines[-1:]
    assert "msg" in json.loads(ctl(home, "plugin", "logs", "db", "-a", f"logging-{ME}", "--tail", "1", "-o", "json").stdout)
    f = subprocess.Popen([CTL, "plugin", "logs", "db", "-a", f"logging-{ME}", "-f", "--tail", "0"], env=home, stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(0.5)
        before = [p for p in d.children()]
        os.kill(before[0], signal.SIGKILL)
        wait_until("a new process", lambda: d.children() and [p for p in d.children()] != before)
        d.close()
        assert f.wait(10) == 0, "it ends with the sidecar"
    finally:
        f.kill()
        f.stdout.close()
    r = ctl(home, "plugin", "logs", "db", "-a", f"logging-{ME}")
    assert r.returncode == 1


def test_plugin_restart(home, daprd):
    d = daprd([component("store", "state.in-memory")], app_id=f"again-{ME}")
    before = list(d.children())
    r = ctl(home, "plugin", "restart", "store", "-a", f"again-{ME}")
    assert r.returncode == 0, r.stderr
    wait_until("another process serves", lambda: d.children() and list(d.children()) != before and d.request("GET", "/v1.0/state/store/k").status == 204)
    assert ctl(home, "plugin", "restart", "none", "-a", f"again-{ME}").returncode == 1


@pytest.mark.parametrize("kind", ["state", "secretstores"])
def test_plugin_new_builds_and_serves(home, folder, daprd, kind):
    r = ctl(home, "plugin", "new", kind, "mine", cwd=folder)
    assert r.returncode == 0, r.stderr
    assert ctl(home, "plugin", "new", kind, "mine", cwd=folder).returncode == 1, "nothing is overwritten"
    sanitize = " -fsanitize=address,undefined" if BUILD.name == "asan" else ""
    subprocess.run(["make", "-C", str(folder / "mine"), "CFLAGS=-O1 -Wall -Wextra -Werror" + sanitize], check=True, capture_output=True)
    d = daprd([(folder / "mine/resources/mine.yaml").read_text()], plugins_path=folder / "mine")
    if kind == "state":
        assert d.request("POST", "/v1.0/state/mine", [{"key": "k", "value": {"a": 1}}]).status == 204
        assert d.request("GET", "/v1.0/state/mine/k").json() == {"a": 1}
    else:
        assert d.request("GET", "/v1.0/secrets/mine/hello").json() == {"hello": "world"}
