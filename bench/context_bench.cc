// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What it costs to cut a sequence across ranks: attention alone, and a step of a small Transformer.
//
//   context_bench [tokens, default 8192] [ring or ulysses] [f32 or bf16] [threads]    one rank
//   trireme launch --workers 2 -- context_bench 8192 ring f32                         two
//
// threads: of each rank, by default its share of the cores. Times are of the slowest rank, medians
// of 5; the same work on one rank with as many threads in all is what to divide by. "cpu" is
// processor time of all ranks together, which a busy machine changes least. Before it measures it
// compares with attention of one rank. "waits" is the part of a pass in which rank 0 waited for
// other ranks.

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <fmt/core.h>
#include <torch/types.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "trireme/launch/init.h"
#include "trireme/nn/transformer.h"
#include "trireme/ops/memory/caching_allocator.h"
#include "trireme/ops/step_parts.h"
#include "trireme/ops/threads.h"
#include "trireme/parallel/context/context_parallel.h"
#include "trireme/parallel/context/ring_attention.h"
#include "trireme/parallel/context/token_parts.h"
#include "trireme/parallel/context/ulysses_attention.h"
#include "trireme/parallel/tensor_buffer.h"

namespace {

using namespace trireme;

constexpr int kRepetitions = 5;
constexpr std::int64_t kHeads = 8, kKvHeads = 4, kHeadWidth = 64;

struct Options {
  std::int64_t tokens = 8192;
  std::string method = "ring";
  at::ScalarType dtype = at::kFloat;
  int threads = 0;
};

struct Times {
  double median_ms = 0;
  double cpu_ms = 0;    // median of the sums of all ranks
  double waits_ms = 0;  // of this rank, a mean
};

double over_ranks(Group& world, double value, ReduceOp op) {
  world.all_reduce(Buffer{&value, 1, DType::kF64}, op);
  return value;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double cpu_ms() { return 1e3 * static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

Times measure(Group& world, const std::function<void()>& pass) {
  using Clock = std::chrono::steady_clock;
  pass();
  std::vector<double> times, cpu_times;
  Times result;
  for (int i = 0; i < kRepetitions; ++i) {
    world.barrier();
    StepParts parts;
    parts.start();
    const auto start = Clock::now();
    const double cpu_start = cpu_ms();
    pass();
    const double cpu = cpu_ms() - cpu_start;
    const double ms = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
    for (const PartTotal& part : parts.stop()) {
      if (part.name == "context parallel") result.waits_ms += part.seconds * 1e3 / kRepetitions;
    }
    times.push_back(over_ranks(world, ms, ReduceOp::kMax));
    cpu_times.push_back(over_ranks(world, cpu, ReduceOp::kSum));
  }
  result.median_ms = median(times);
  result.cpu_ms = median(cpu_times);
  return result;
}

void print(const Group& world, const Options& options, const std::string& what, const Times& t) {
  if (world.rank() != 0) return;
  fmt::print("{:<24} {} ranks {:<8} {:<9} T {:<7} {:9.1f} ms   cpu {:9.1f} ms   waits {:7.2f} ms\n",
             what, world.size(), options.method, c10::toString(options.dtype), options.tokens,
             t.median_ms, t.cpu_ms, t.waits_ms);
}

struct Inputs {
  at::Tensor q, k, v;
};

Inputs inputs_of(const Options& options, const TokenParts& parts) {
  const auto values = [&](std::int64_t heads) {
    return own_tokens(torch::randn({1, options.tokens, heads, kHeadWidth}), 1, parts)
        .to(options.dtype);
  };
  torch::manual_seed(1);
  const at::Tensor q = values(kHeads), k = values(kKvHeads), v = values(kKvHeads);
  return {q, k.transpose(1, 2), v.transpose(1, 2)};
}

at::Tensor attention(const Options& options, const Inputs& in, Group& world) {
  const auto across = options.method == "ring" ? ring_attention : ulysses_attention;
  return across(in.q, in.k, in.v, options.tokens, {}, world);
}

void verify(const Options& options, const Inputs& in, const TokenParts& parts, Group& world) {
  const Inputs whole = inputs_of(options, token_parts(options.tokens, 0, 1));
  const at::NoGradGuard no_grad;
  const at::Tensor expected =
      own_tokens(ops::causal_attention(whole.q, whole.k, whole.v), 1, parts);
  const double difference = (attention(options, in, world) - expected).abs().max().item<double>();
  if (difference > 0.05) throw std::runtime_error("attention across ranks is another");
}

void bench_attention(const Options& options, Group& world) {
  const TokenParts parts = token_parts(options.tokens, world.rank(), world.size());
  Inputs in = inputs_of(options, parts);
  verify(options, in, parts, world);
  print(world, options, "attention forward", measure(world, [&] {
          const at::NoGradGuard no_grad;
          attention(options, in, world);
        }));
  for (at::Tensor* x : {&in.q, &in.k, &in.v}) *x = x->detach().requires_grad_();
  const at::Tensor gradient = torch::randn(in.q.sizes()).to(options.dtype);
  print(world, options, "attention and gradients", measure(world, [&] {
          for (at::Tensor* x : {&in.q, &in.k, &in.v}) x->mutable_grad().reset();
          attention(options, in, world).backward(gradient);
        }));
}

void bench_model(const Options& options, Group& world) {
  nn::ModelConfig config;
  config.family = "llama";
  config.layers = 2;
  config.width = kHeads * kHeadWidth;
  config.heads = kHeads;
  config.kv_heads = kKvHeads;
  config.mlp_width = 3 * config.width;
  config.context = options.tokens;
  config.vocab_size = 8192;
  config.resolve(0);
  nn::Transformer model(config);
  nn::initialize(*model, 7);
  model->to(options.dtype);
  ContextParallel context = context_parallel(*model, world, {.method = options.method});
  torch::manual_seed(1);
  const at::Tensor tokens = torch::randint(8192, {1, options.tokens + 1}, at::kLong);
  const ContextBatch own =
      context.cut(tokens.narrow(1, 0, options.tokens), tokens.narrow(1, 1, options.tokens));
  print(world, options, "model's loss, gradients", measure(world, [&] {
          model->zero_grad();
          (model->loss(own.tokens_BT, own.targets_BT) * own.weight).backward();
        }));
}

Options options_of(int count, char** arguments) {
  Options options;
  if (count > 1) options.tokens = std::atoll(arguments[1]);
  if (count > 2) options.method = arguments[2];
  if (count > 3) options.dtype = std::string(arguments[3]) == "bf16" ? at::kBFloat16 : at::kFloat;
  if (count > 4) options.threads = std::atoi(arguments[4]);
  return options;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    const Options options = options_of(count, arguments);
    const auto world = init();
    install_caching_allocator();
    keep_memory_pages();
    const int cores = static_cast<int>(std::thread::hardware_concurrency());
    const int share = std::max(1, cores / world->size());
    set_compute_threads({.threads = options.threads > 0 ? options.threads : share});
    bench_attention(options, *world);
    bench_model(options, *world);
    world->close();
  } catch (const std::exception& error) {
    fmt::print(stderr, "context_bench: {}\n", error.what());
    return 1;
  }
  return 0;
}
