"""agentctl's verbs, a module each; agent.ctl.parser names them, agent.ctl.main imports one."""
