"""Docker: daemon.json as a document, the engine as a service. The only importer of docker."""
