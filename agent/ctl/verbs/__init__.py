"""agentctl's verbs, a module each. agent.ctl.verbtable lists them."""
