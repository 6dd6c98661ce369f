"""`edgetk doctor`: what is installed, what is missing, what this machine can measure."""

from __future__ import annotations

from edgetk.toolkit.commands import shared


def doctor(as_json: shared.Json = False) -> None:
    """Say what is installed, which extras are missing and what can be measured here."""
    from edgetk.toolkit import doctor as examination

    found = examination.examine()
    if as_json:
        shared.print_json(found)
        return
    cpu = found["cpu"]
    rows = [
        ("edgetk", found["edgetk"]),
        ("python", found["python"]),
        ("platform", found["platform"]),
        ("cpu", f"{cpu['model']}, {cpu['cores']} usable cores, {' '.join(cpu['flags']) or 'no int8 instructions known'}"),
        *((f"can measure {metric}", text) for metric, text in found["measures"].items()),
    ]
    for name, text in rows:
        print(f"{name:<24} {text}")
    for package, version in found["packages"].items():
        print(f"{package:<24} {version or 'NOT INSTALLED; run: pip install ' + package}")
    for extra, packages in found["extras"].items():
        text = ", ".join(f"{package} {version or 'not installed'}" for package, version in packages.items())
        hint = f"; run: pip install 'edgetk[{extra}]'" if extra in found["missing_extras"] else ""
        print(f"{'extra ' + extra:<24} {text}{hint}")
    print("\nedgetk data shows where the data of a task is, edgetk list what models, passes and targets there are")
