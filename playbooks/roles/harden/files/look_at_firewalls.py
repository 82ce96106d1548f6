"""Prints as JSON which firewall of the server's own already turns traffic away: a second one would
drop what its owner allows there. Changes nothing.
"""

import json
import re
import subprocess
import sys

# What a rule of iptables may ask for and still take hold of all traffic that comes in somewhere.
_BROAD_OPTIONS = r'(?: (?:! )?-i \S+| -m comment --comment (?:"[^"]*"|\S+))*'
_SAVED_RULE = re.compile(rf"^-A (\S+){_BROAD_OPTIONS} -[jg] (\S+)", re.MULTILINE)
_BROAD_KEYS = ("iif", "iifname", "iifgroup", "nfproto")


def main():
    rules = said("nft", "--json", "--terse", "list", "ruleset")
    if rules is None:
        sys.exit("nft cannot list the server's firewall rules")
    found = [
        foreign_manager(said("ufw", "status"), said("firewall-cmd", "--state")),
        foreign_chain(json.loads(rules)["nftables"]),
    ]
    for version in ("", "6"):
        found += [saved_firewall(tool, save(tool)) for tool in iptables_tools(version)]
    sys.stdout.write(json.dumps({"foreign_firewall": next(filter(None, found), "")}) + "\n")


def said(*command):
    """What a command prints; None when it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def iptables_tools(version):
    """The two kinds of iptables whose rules may be in force. The legacy one would load its modules
    if they were not, so it is asked only when the kernel has such tables.
    """
    try:
        with open(f"/proc/net/ip{version}_tables_names", encoding="ascii") as file:
            has_legacy = "filter" in file.read().split()
    except OSError:
        has_legacy = False
    kinds = ("nft", "legacy") if has_legacy else ("nft",)
    return [f"ip{version}tables-{kind}" for kind in kinds]


def save(tool):
    return said(f"{tool}-save", "-t", "filter") or ""


def foreign_manager(ufw_status, firewalld_state):
    """A program that looks after the firewall, whatever its rules are at this moment."""
    if ufw_status and "status: active" in ufw_status.lower():
        return "ufw"
    if firewalld_state and firewalld_state.strip() == "running":
        return "firewalld"
    return ""


def foreign_chain(entries):
    """Family and table of an input chain in nft's JSON that drops what it does not know."""
    handed = {}
    for rule in (entry["rule"] for entry in entries if "rule" in entry):
        if all(is_broad(part) for part in rule["expr"]):
            targets = handed.setdefault((rule["family"], rule["table"], rule["chain"]), [])
            targets += [target_of(rule, part) for part in rule["expr"]]
    for chain in (entry["chain"] for entry in entries if "chain" in entry):
        family, table = chain["family"], chain["table"]
        if chain.get("hook") != "input" or (family, table) == ("inet", "managed"):
            continue
        if family not in ("ip", "ip6", "inet"):
            continue
        if chain.get("policy") == "drop" or drops_the_rest((family, table, chain["name"]), handed):
            return f"{family} {table}"
    return ""


def is_broad(part):
    """Does this part of an nft rule leave its hold on all traffic that comes in somewhere?"""
    if "match" in part:
        left = part["match"]["left"]
        if "payload" in left:
            return part["match"]["op"] == "!=" and left["payload"].get("field") == "dport"
        return left.get("meta", {}).get("key") in _BROAD_KEYS
    return not {"limit", "connlimit", "quota", "xt"}.intersection(part)


def target_of(rule, part):
    """Where this part of a rule sends what it gets: "DROP", another chain, or None."""
    if "drop" in part or "reject" in part:
        return "DROP"
    further = part.get("jump") or part.get("goto")
    return (rule["family"], rule["table"], further["target"]) if further else None


def saved_firewall(tool, saved):
    """The tool, if the input chain that it saved drops what it does not know."""
    handed = {}
    for chain, target in _SAVED_RULE.findall(saved):
        handed.setdefault(chain, []).append("DROP" if target == "REJECT" else target)
    by_policy = re.search(r"^:INPUT DROP\b", saved, re.MULTILINE)
    return tool if by_policy or drops_the_rest("INPUT", handed) else ""


def drops_the_rest(chain, handed):
    """Does something that gets all of this chain's traffic drop it? `handed` says by chain who."""
    seen, to_follow = set(), [chain]
    while to_follow:
        present = to_follow.pop()
        if present == "DROP":
            return True
        if present not in seen:
            seen.add(present)
            to_follow += handed.get(present, [])
    return False


if __name__ == "__main__":
    main()
