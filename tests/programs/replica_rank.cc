// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// replica_rank RANK SIZE PORT LISTEN_FD RESULT_FD ENGINE: a rank of ReplicaFailure's tests. Rank 1
// is killed in its second backward pass; the others write to RESULT_FD what they saw.
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <memory>
#include <string>

#include "tests/support/error_text.h"
#include "tests/support/ranks.h"
#include "tests/support/replica_models.h"

namespace trireme {
namespace {

using testing::failure_of;

std::string run_rank_until_killed(const WorldOptions& options) {
  const std::unique_ptr<Group> group = join_world(options);
  testing::Chain chain(4);
  Replica replica(chain, *group, {.bucket_bytes = testing::kChainBucketBytes});
  testing::run_step(chain, replica, *group);
  if (group->rank() == 1) {
    chain.between = [&](std::size_t layer, const at::Tensor& x) {
      if (layer > 0) return x;
      const at::Tensor here = x * 1;
      here.register_hook([](const at::Tensor&) { std::raise(SIGKILL); });
      return here;
    };
  }
  const auto step = [&] { testing::run_step(chain, replica, *group); };
  const std::string error = failure_of(step);
  return error + "\n" + failure_of(step);
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  if (argc != 7) return 2;
  const auto number = [&](int i) { return std::atoi(argv[i]); };
  trireme::testing::Listener listener{number(4), number(3)};
  const auto options = trireme::testing::world_options(number(2), listener, argv[6]);
  const std::string result =
      trireme::run_rank_until_killed(options.at(static_cast<std::size_t>(number(1))));
  const auto written = ::write(number(5), result.data(), result.size());
  return written == static_cast<ssize_t>(result.size()) ? 0 : 1;
}
