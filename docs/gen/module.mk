# Write the reference pages and man pages from the tables of the programs; docs/generate runs them.
TOOLS += doc_daprd doc_daprctl
doc_daprd_SRC := docs/gen/daprd.c docs/gen/manifest.c
doc_daprd_LIBS := kernel trust net base proto llhttp
doc_daprd_LD = $(BASE_LD) $(NET_LD)
doc_daprctl_SRC := docs/gen/daprctl.c
doc_daprctl_LIBS := ctl trust net base proto llhttp
doc_daprctl_LD = $(NET_LD) $(BASE_LD)
