"""All rules over one folder, as a verdict for each server, a table and JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedtrain.config.errors import UserError
from embedtrain.serving.answers import Finding, Outcome, Server
from embedtrain.serving.python_rules import PLAIN_TRANSFORMERS, SENTENCE_TRANSFORMERS
from embedtrain.serving.served import open_served
from embedtrain.serving.tei_rules import TEI
from embedtrain.serving.vllm_rules import VLLM
from embedtrain.show.tables import print_table

SERVERS = (SENTENCE_TRANSFORMERS, PLAIN_TRANSFORMERS, TEI, VLLM)
VERDICTS = {
    Outcome.FINE: "loads",
    Outcome.REMARK: "loads, mind the remarks",
    Outcome.OTHER: "loads, but gives other vectors",
    Outcome.REFUSES: "refuses",
}
NOT_RUN = "by the rules in the server's source, not run"


def check_folder(path: Path | str, servers: Sequence[Server] = SERVERS) -> list[Finding]:
    """What each rule of each server finds. Where a server does not load the folder at all, only that."""
    served = open_served(path)
    findings = []
    for server in servers:
        answered = [(rule, rule.judge(served)) for rule in server.rules]
        findings += [Finding(server, rule, answer) for rule, answer in answered if answer is not None]
    return findings


def choose_servers(keys: Sequence[str]) -> tuple[Server, ...]:
    """Servers by their keys, all where none is given. Raises UserError for an unknown one."""
    known = {server.key: server for server in SERVERS}
    unknown = [key for key in keys if key not in known]
    if unknown:
        raise UserError(f"--server {unknown[0]}: expected one of {', '.join(known)}")
    return tuple(known[key] for key in keys) or SERVERS


def worst(findings: Sequence[Finding], server: Server) -> Outcome:
    """The worst outcome of one server's rules."""
    outcomes = [finding.answer.outcome for finding in findings if finding.server is server]
    return max(outcomes, key=lambda outcome: outcome.rank, default=Outcome.FINE)


def is_bad(findings: Sequence[Finding]) -> bool:
    """Whether any server refuses the folder or gives other vectors without a word."""
    return any(f.answer.outcome in (Outcome.OTHER, Outcome.REFUSES) for f in findings)


def verdict_rows(findings: Sequence[Finding]) -> list[tuple[str, str, str]]:
    """For each server: its name, the verdict, and what was read."""
    servers = list(dict.fromkeys(f.server for f in findings))
    return [(server.name, VERDICTS[worst(findings, server)], server.read_from) for server in servers]


def print_findings(path: Path | str, findings: Sequence[Finding], every: bool) -> None:
    """The verdicts, then rules that are not fine, worst first; with `every` all rules and their sources."""
    title = f"{path}: what servers make of it"
    print_table(title, ("server", "verdict", "read from"), verdict_rows(findings))
    if every:
        print_rules(findings)
    elif rows := remark_rows(findings):
        print_table(None, ("server", "rule", "outcome", "found"), rows)
    print(f"Judged {NOT_RUN}.\nCheck a server with a few texts before you rely on it.")


def remark_rows(findings: Sequence[Finding]) -> list[tuple[str, str, str, str]]:
    """For each rule that is not fine: server, rule, outcome and what was found; worst first in a server."""
    servers = list(dict.fromkeys(f.server for f in findings))
    shown = [f for f in findings if f.answer.outcome is not Outcome.FINE]
    shown.sort(key=lambda f: (servers.index(f.server), -f.answer.outcome.rank))
    return [(f.server.name, f.rule.name, f.answer.outcome.value, f.answer.text) for f in shown]


def print_rules(findings: Sequence[Finding]) -> None:
    """A table a server, of every rule and the file that it was read from."""
    for server in dict.fromkeys(f.server for f in findings):
        rows = [
            (f.rule.name, f.answer.outcome.value, f.answer.text, f.rule.source)
            for f in findings
            if f.server is server
        ]
        print_table(f"{server.name}: {server.read_from}", ("rule", "outcome", "found", "source"), rows)


def as_json(path: Path | str, findings: Sequence[Finding]) -> dict[str, Any]:
    """All of it, each rule with the file it was read from."""
    servers = list(dict.fromkeys(f.server for f in findings))
    return {
        "folder": str(path),
        "basis": NOT_RUN,
        "servers": {
            server.key: {
                "verdict": VERDICTS[worst(findings, server)],
                "read_from": server.read_from,
                "rules": [
                    {
                        "rule": f.rule.name,
                        "outcome": f.answer.outcome.value,
                        "found": f.answer.text,
                        "source": f.rule.source,
                    }
                    for f in findings
                    if f.server is server
                ],
            }
            for server in servers
        },
    }
