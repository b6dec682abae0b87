PLUGINS += conversation.echo
conversation.echo_SRC := plugins/conversation.echo/echo.c
