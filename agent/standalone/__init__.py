"""Work without a running agent: one pass, offline documents, the doctor."""
