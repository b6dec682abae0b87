PLUGINS += conversation.ollama
conversation.ollama_SRC = plugins/conversation.ollama/ollama.c $(SHARED_OPENAI)
