"""agentctl's verbs, a module each; agent.ctl.verbtable names them, agent.ctl.main imports one."""
