.PHONY: help test lint
help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'
test: ## run every test (root is needed: tests make network namespaces)
	go test -count=1 -timeout 10m ./...
lint: ## formatting and go vet
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	go vet ./...
