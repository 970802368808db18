"""The command line: `bz`.

Reading order: `app` names the commands, `group` finds those of plugins, `output` is the only place that prints,
`faults` turns an exception into sentences and an exit code; each further module is one command with its subcommands.
"""
