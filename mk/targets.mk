# What a person calls. The text after ## is printed by `make help`.
.PHONY: all gen unit test demo conformance bench asan tsan fuzz lint fmt docs install deps clean help cover

all: $(PROG_FILES) $(PLUGIN_FILES) ## build daprd, daprctl and every plugin (build/release)

clean: ## remove everything that was built
	rm -rf build

unit: $(TEST_FILES) ## run the unit tests
	@fail=0; for t in $(TEST_FILES); do echo "== $$t"; CK_DEFAULT_TIMEOUT=60 $$t || fail=1; done; exit $$fail

asan: ## run all unit tests under ASan and UBSan
	$(MAKE) MODE=asan unit

tsan: ## run all unit tests under TSan
	$(MAKE) MODE=tsan unit

help: ## print this list
	@grep -hE '^[a-z]+:.*##' mk/targets.mk | sed -E 's/^([a-z]+):.*## */  make \1|/' | column -t -s'|'
