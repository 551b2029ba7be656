// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// sharded_rank RANK SIZE ADDRESS STAGE SHARD_RANKS STEPS RESULT_FD WEIGHTS: a rank of the tests in
// parallel/sharded_hosts_test.cc. Writes to RESULT_FD what it has sent between copies of the model
// and the model's elements, and rank 0 the f32 weights to the file WEIGHTS.
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>

#include "tests/support/error_text.h"
#include "tests/support/model_fixtures.h"
#include "tests/support/ranks.h"
#include "trireme/nn/transformer.h"
#include "trireme/parallel/shard/sharded_model.h"

namespace trireme {
namespace {

constexpr std::int64_t kMicroBatches = 8;

// Some 300 000 parameters: what travels beside them counts for little.
nn::ModelConfig config() {
  nn::ModelConfig config = testing::small_model_config("gpt2");
  config.width = 120;
  config.mlp_width = 304;
  return config;
}

std::string train(Group& group, int stage, int shard_ranks, int steps, const char* weights_file) {
  nn::Transformer model(config());
  nn::initialize(*model, static_cast<std::uint64_t>(3 + group.rank()));  // rank 0's counts
  ShardedModel sharded(*model, group,
                       {.stage = stage,
                        .micro_batches = kMicroBatches,
                        .bucket_bytes = std::int64_t{256} << 10,
                        .units = model->blocks(),
                        .shard_ranks = shard_ranks});
  model->set_block_runner([&](const auto& block, const auto& inputs, const auto& f) {
    return sharded.run(block, inputs, f);
  });
  const auto optimizer = optim::make_optimizer({.name = "adamw"}, sharded.space());
  for (std::int64_t step = 0; step < steps; ++step) {
    for (const std::int64_t m : sharded.micro_batches()) {
      const std::int64_t salt = step * kMicroBatches + m;
      sharded.backward(sharded.forward([&] {
        return model->loss(testing::formula_tokens(2, 11, 37, salt),
                           testing::formula_tokens(2, 11, 37, salt + 1));
      }));
    }
    sharded.finish_gradients();
    sharded.step(*optimizer, 0.01, 1.0 / kMicroBatches);
  }
  const at::Tensor weights = sharded.gather_weights();
  if (group.rank() == 0) {
    std::ofstream file(weights_file, std::ios::binary);
    file.write(static_cast<const char*>(weights.data_ptr()),
               static_cast<std::streamsize>(weights.nbytes()));
  }
  group.barrier();
  return fmt::format("{} {}", sharded.bytes_sent_between_replicas(), sharded.layout().size);
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  if (argc != 9) return 2;
  const auto number = [&](int i) { return std::atoi(argv[i]); };
  trireme::WorldOptions options;
  options.rank = number(1);
  options.size = number(2);
  options.address = argv[3];
  options.secret = "a secret of this test";
  options.join_timeout = options.timeout = trireme::testing::kTestDeadline;
  std::string result;
  const std::string error = trireme::testing::failure_of([&] {
    const auto world = trireme::join_world(options);
    result = trireme::train(*world, number(4), number(5), number(6), argv[8]);
    world->close();
  });
  if (error != "no error") result = error;
  const auto written = ::write(number(7), result.data(), result.size());
  return written == static_cast<ssize_t>(result.size()) ? 0 : 1;
}
