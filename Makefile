# Each target sets up what it needs: system packages through apt-get on Debian and Ubuntu.
.DEFAULT_GOAL := help
.PHONY: ask bench-core bench-frames bench-model bench-train gpu help test train

help:
	@echo "make ask     make a demo video and answer a question about it"
	@echo "make test    all checks and tests, as CI runs them"
	@echo "make bench-core   what the agent itself takes of an episode"
	@echo "make bench-frames [VIDEO=FILE]   measure frame fetching against decord and torchcodec"
	@echo "make bench-model  prompting and decoding against PyTorch and llama.cpp, on the CPU"
	@echo "make bench-train  supervised steps and rollouts against PyTorch, on the CPU"
	@echo "make gpu [DEVICE=cuda] [MODEL=DIR]   the fixtures and the model bench on a GPU"
	@echo "make train   a tiny model from nothing, by the paper's stages (under 40 minutes on 2 cores)"
	@echo
	@echo "On a video of your own:"
	@echo '  cargo run --release --example ask --features gst -- VIDEO "QUESTION"'

ask:
	@scripts/setup.sh ask
	cargo run --release --example ask --features gst -- --demo

test:
	@scripts/setup.sh test
	@scripts/ci.sh

bench-core:
	cargo bench --locked -p eva-core --features alloc --bench episode

# VIDEO, RESIZE (of the video's size) and REPEATS (the least counts) may be given.
bench-frames:
	@scripts/setup.sh bench
	@scripts/bench_frames.sh $(if $(VIDEO),--video "$(VIDEO)") $(if $(RESIZE),--resize $(RESIZE)) \
		$(if $(REPEATS),--repeats $(REPEATS))

bench-model:
	@scripts/setup.sh bench
	@scripts/bench_model.sh

# Supervised steps and rollouts of eva-tiny by us and by PyTorch.
bench-train:
	@scripts/setup.sh bench
	@scripts/bench_train.sh

# DEVICE: cuda, wgpu, vulkan, metal, or several of them.
gpu:
	@MODEL="$(MODEL)" scripts/gpu.sh $(or $(DEVICE),cuda)

train:
	cargo run --release --example train -- all --seed 1
