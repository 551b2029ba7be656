// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// pipeline_rank RANK SIZE PORT LISTEN_FD RESULT_FD ENGINE SIGNAL PASS MICRO_BATCH: a rank of
// PipelineFailure's tests, with a stage. Rank 1 sends itself the signal in its pass ("F" or "B") of
// the micro-batch, in the second step; the others write to RESULT_FD what they saw.
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>

#include "tests/support/error_text.h"
#include "tests/support/ranks.h"
#include "trireme/parallel/pipeline/pipeline.h"

namespace trireme {
namespace {

using testing::failure_of;

constexpr std::int64_t kMicroBatches = 6, kWidth = 300;
constexpr std::chrono::milliseconds kShort{3000};  // a deadline that is waited out

// A layer that does something in its passes.
struct WatchedImpl : torch::nn::Module {
  at::Tensor forward(const at::Tensor& x) {
    if (in_forward) in_forward();
    const at::Tensor y = x * 1;
    if (in_backward) y.register_hook([this](const at::Tensor&) { in_backward(); });
    return y;
  }
  std::function<void()> in_forward, in_backward;
};
TORCH_MODULE(Watched);

std::string run_rank(const WorldOptions& options, int signal, const std::string& pass,
                     int micro_batch) {
  const std::unique_ptr<Group> world = join_world(options);
  if (signal == SIGSTOP) world->set_timeout(kShort);
  Watched watched;
  const auto linear = [] { return torch::nn::Linear(kWidth, kWidth); };
  torch::nn::Sequential net(linear(), watched, linear(), linear());
  Pipeline pipeline(net, *world, {.micro_batches = kMicroBatches, .layers = {1, 2, 1}});
  const auto step = [&] {
    pipeline.step(
        [](std::int64_t m) {
          return at::ones({900 + m, kWidth}).narrow(0, 0, 900);
        },
        [](const at::Tensor& y, std::int64_t) { return y.sum(); });
  };
  step();
  if (world->rank() == 1) {
    (pass == "F" ? watched->in_forward : watched->in_backward) = [=, next = 0]() mutable {
      if (next++ == micro_batch) std::raise(signal);
    };
  }
  const std::string error = failure_of(step);
  return error + "\n" + failure_of(step);
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  if (argc != 10) return 2;
  const auto number = [&](int i) { return std::atoi(argv[i]); };
  trireme::testing::Listener listener{number(4), number(3)};
  const auto options = trireme::testing::world_options(number(2), listener, argv[6]);
  const std::string result = trireme::run_rank(options.at(static_cast<std::size_t>(number(1))),
                                               number(7), argv[8], number(9));
  const auto written = ::write(number(5), result.data(), result.size());
  return written == static_cast<ssize_t>(result.size()) ? 0 : 1;
}
