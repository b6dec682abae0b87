"""Load by build/…/bin/load_bench: what it measures is the sidecar's, not that of Python callers."""
import json, subprocess

from conftest import BUILD


class LeanLoad:
    """with LeanLoad(d, callers=…): …; .phase("name"); afterwards .result: failed, failures, sent, lost, doubled, pauses, phases."""

    def __init__(self, d, app=0, callers=8, publishers=0, streams=0, pause_ms=0, configuration=None):
        args = ["-h", d.http, "-g", d.grpc, "-a", app, "-c", callers, "-p", publishers, "-s", streams, "-w", pause_ms]
        if configuration:
            args += ["-k", configuration]
        self.proc = subprocess.Popen([str(BUILD / "bin/load_bench"), *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.result = None

    def phase(self, name):
        self.proc.stdin.write(name + "\n")
        self.proc.stdin.flush()

    def stop(self):
        if self.result is None:
            out, _ = self.proc.communicate(timeout=60)
            assert self.proc.returncode == 0 and out, f"load_bench ended with {self.proc.returncode}"
            self.result = json.loads(out)
        return self.result

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        if kind is None:
            self.stop()
        elif self.proc.poll() is None:
            self.proc.kill()
            self.proc.wait()
