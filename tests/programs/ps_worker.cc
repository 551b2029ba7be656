// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A worker of a job with parameter servers, for tests/cli/serve_parameters_test.cc:
//
//   ps_worker STEPS [GATE_STEP GATE]
//
// Trains for STEPS steps with numbers that floats hold exactly, and says whether the servers have
// what they must have. Before GATE_STEP it makes the file GATE.reached and waits for the file GATE.

#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/base/error.h"
#include "trireme/launch/environment.h"
#include "trireme/launch/local_workers.h"
#include "trireme/optim/flat_layout.h"
#include "trireme/train/parameter_server_job.h"

namespace trireme {
namespace {

constexpr std::int64_t kSize = 3 * kShardBlock;
constexpr std::int64_t kWidth = 3;
constexpr std::uint64_t kRows = 100;  // pushed by each rank: its own, and as many by all
constexpr double kRate = 0.5;

ps::JobLayout layout() {
  ps::JobLayout layout;
  layout.range_bytes = 4 * kShardBlock;
  layout.dense.size = kSize;
  layout.dense.optimizer = {.name = "sgd", .momentum = 0};
  layout.dense.parameters = {{.entry = {"all", {kSize}, 0, kSize}, .decays = false}};
  layout.sparse.tables = {{.name = "rows",
                           .width = kWidth,
                           .init = "zeros",
                           .optimizer = {.name = "sgd", .momentum = 0}}};
  layout.sparse.slices = 5;
  return layout;
}

float first_weight(std::int64_t i) { return static_cast<float>(i % 31); }
float gradient_of(int rank, std::int64_t i) { return static_cast<float>((rank + 2) * (i % 13)); }
float row_gradient(int rank, std::uint64_t id, std::int64_t j) {
  return static_cast<float>((rank + 1) * static_cast<std::int64_t>(id % 11 + 1) + j);
}

std::vector<std::uint64_t> ids_of(int rank) {
  std::vector<std::uint64_t> ids;
  for (std::uint64_t i = 0; i < kRows; ++i) {
    ids.push_back(i);
    ids.push_back(1'000'000 * static_cast<std::uint64_t>(rank + 1) + i);
  }
  return ids;
}

void wait_at(const std::string& gate) {
  std::ofstream(gate + ".reached") << "here";
  const Deadline deadline = Deadline::after(std::chrono::minutes(2));
  while (access(gate.c_str(), F_OK) != 0 && !deadline.expired()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

void step(ps::Worker& worker, int workers) {
  const int rank = worker.rank();
  for (std::int64_t i = 0; i < kSize; ++i) {
    worker.gradients()[static_cast<std::size_t>(i)] = gradient_of(rank, i);
  }
  const std::vector<std::uint64_t> ids = ids_of(rank);
  std::vector<float> gradients;
  for (const std::uint64_t id : ids) {
    for (std::int64_t j = 0; j < kWidth; ++j) gradients.push_back(row_gradient(rank, id, j));
  }
  const ps::PushRows push = {0, ids, gradients.data()};
  // The sum, not the mean.
  const double scale = workers;
  worker.push({.learning_rate = kRate, .gradient_scale = scale, .then_pull = true});
  worker.push_rows({&push, 1}, {.learning_rate = kRate, .gradient_scale = scale});
  worker.wait_all();
  worker.end_step();
}

// Where the sum over the ranks has been taken off in each step.
bool as_expected(ps::Worker& worker, int workers) {
  const auto after = [&](const auto& gradient) {
    double sum = 0;
    for (int rank = 0; rank < workers; ++rank) sum += gradient(rank);
    return kRate * static_cast<double>(worker.clock()) * sum;
  };
  for (std::int64_t i = 0; i < kSize; ++i) {
    const double expected = first_weight(i) - after([&](int r) { return gradient_of(r, i); });
    if (worker.weights()[static_cast<std::size_t>(i)] != expected) return false;
  }
  const std::vector<std::uint64_t> ids = ids_of(worker.rank());
  std::vector<float> rows(ids.size() * kWidth);
  const ps::PullRows pull = {0, ids, rows.data()};
  worker.wait(worker.pull_rows({&pull, 1}));
  for (std::size_t i = 0; i < ids.size(); ++i) {
    for (std::int64_t j = 0; j < kWidth; ++j) {
      const double expected = -after([&](int rank) {
        return ids[i] < kRows || rank == worker.rank() ? row_gradient(rank, ids[i], j) : 0;
      });
      if (rows[i * kWidth + static_cast<std::size_t>(j)] != expected) return false;
    }
  }
  return true;
}

int run(std::int64_t steps, std::int64_t gate_step, const std::string& gate) {
  follow_launcher();
  const ServedJob job;
  ps::Worker worker(job.worker(), layout());
  for (std::int64_t i = 0; i < kSize; ++i) {
    worker.weights()[static_cast<std::size_t>(i)] = first_weight(i);
  }
  if (worker.rank() == 0) worker.wait(worker.init());
  worker.wait(worker.pull());
  while (worker.clock() < steps) {
    if (worker.clock() == gate_step) wait_at(gate);
    step(worker, job.num_workers());
  }
  const bool right = as_expected(worker, job.num_workers());
  std::printf("worker %d: %s after %d steps\n", worker.rank(), right ? "as expected" : "wrong",
              static_cast<int>(worker.clock()));
  if (worker.rank() == 0) {
    worker.wait_for_others_to_leave();
    std::printf("%d rows\n", static_cast<int>(worker.report().rows));
  }
  worker.leave();
  return right ? 0 : 1;
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) try {
  if (argc != 2 && argc != 4) return 2;
  return trireme::run(std::stoi(argv[1]), argc == 4 ? std::stoi(argv[2]) : -1,
                      argc == 4 ? argv[3] : "");
} catch (const trireme::Error& error) {
  return std::fprintf(stderr, "%s\n", error.what()), 1;
}
