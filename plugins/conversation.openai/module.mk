SHARED_OPENAI := $(addprefix plugins/shared/openai/,openai.c request.c response.c) plugins/shared/web/web.c
PLUGINS += conversation.openai
conversation.openai_SRC := plugins/conversation.openai/openai.c $(SHARED_OPENAI)
