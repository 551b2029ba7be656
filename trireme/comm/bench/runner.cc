// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/bench/runner.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <vector>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/comm/group.h"

namespace trireme {
namespace {

constexpr double kSampleSeconds = 200e-6;
constexpr double kWarmUpSeconds = 5e-3;
constexpr int kRoot = 0;

// Per operation of one sample, on this rank.
double sample_seconds(const BenchSubject& subject, const BenchCase& measured,
                      const BenchVectors& vectors, std::int64_t operations) {
  subject.barrier();
  const auto start = std::chrono::steady_clock::now();
  for (std::int64_t i = 0; i < operations; ++i) subject.run(*measured.operation, vectors);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return seconds.count() / static_cast<double>(operations);
}

// Per operation, of each sample the slowest rank's.
std::vector<double> sample_all(const BenchSubject& subject, const BenchCase& measured,
                               const BenchVectors& vectors, int samples, std::int64_t operations) {
  std::vector<double> seconds(static_cast<std::size_t>(samples));
  for (double& one : seconds) one = sample_seconds(subject, measured, vectors, operations);
  subject.max_over_ranks(seconds);
  return seconds;
}

// The same on every rank, because the samples are.
std::int64_t times_in(double seconds, double one, std::int64_t least, std::int64_t most) {
  const double times = std::ceil(seconds / std::max(one, 1e-9));
  return std::clamp(static_cast<std::int64_t>(std::min(times, 1e9)), least, most);
}

// How long one operation takes once it is warm.
double warm_up(const BenchSubject& subject, const BenchCase& measured,
               const BenchVectors& vectors) {
  const double cold = spread_of(sample_all(subject, measured, vectors, 3, 1)).median;
  if (cold > kWarmUpSeconds) return cold;
  const std::int64_t operations = times_in(kWarmUpSeconds / 3, cold, 1, 1000);
  return spread_of(sample_all(subject, measured, vectors, 3, operations)).median;
}

void run_on_group(Group& group, BenchOp op, const BenchVectors& v) {
  switch (op) {
    case BenchOp::kAllReduce:
      return group.all_reduce(v.output);
    case BenchOp::kReduceScatter:
      return group.reduce_scatter(v.input, v.output);
    case BenchOp::kAllGather:
      return group.all_gather(v.input, v.output);
    case BenchOp::kAllToAll:
      return group.all_to_all(v.input, v.output);
    case BenchOp::kBroadcast:
      return group.broadcast(v.output, kRoot);
    case BenchOp::kReduce:
      return group.reduce(v.output, kRoot);
    case BenchOp::kGather:
      return group.gather(v.input, v.output, kRoot);
    case BenchOp::kScatter:
      return group.scatter(v.input, v.output, kRoot);
    case BenchOp::kSendRecv: {
      const int right = (group.rank() + 1) % group.size();
      const int left = (group.rank() + group.size() - 1) % group.size();
      return group.send_recv(v.input, right, v.output, left);
    }
    case BenchOp::kBarrier:
      return group.barrier();
  }
}

}  // namespace

BenchSubject bench_subject(Group& group) {
  return {
      .rank = group.rank(),
      .size = group.size(),
      .barrier = [&group] { group.barrier(); },
      .max_over_ranks =
          [&group](std::span<double> values) {
            group.all_reduce(buffer_of(values), ReduceOp::kMax);
          },
      .run = [&group](const BenchOperation& operation,
                      const BenchVectors& vectors) { run_on_group(group, operation.op, vectors); }};
}

std::int64_t BenchCase::bytes() const {
  return shape.count * static_cast<std::int64_t>(dtype_bytes(dtype));
}

BenchCase make_bench_case(const BenchOperation& operation, DType dtype, std::int64_t bytes,
                          const BenchSubject& subject) {
  const std::int64_t blocks = operation.in_blocks ? subject.size : 1;
  const std::int64_t unit_bytes = static_cast<std::int64_t>(dtype_bytes(dtype)) * blocks;
  const std::int64_t units = std::max<std::int64_t>(1, (bytes + unit_bytes - 1) / unit_bytes);
  const bool empty = operation.op == BenchOp::kBarrier;
  return {
      .operation = &operation,
      .dtype = dtype,
      .shape = {.rank = subject.rank, .ranks = subject.size, .count = empty ? 0 : units * blocks}};
}

double BenchResult::bus_gb_per_s(const BenchCase& measured) const {
  return measured.operation->bus_factor(measured.shape.ranks) *
         static_cast<double>(measured.bytes()) / (us.median * 1e3);
}

void verify(const BenchSubject& subject, const BenchCase& measured, const BenchVectors& vectors) {
  const BenchPattern pattern(subject.size);
  fill_bench_vectors(pattern, measured.shape, vectors);
  subject.barrier();
  subject.run(*measured.operation, vectors);
  const std::string wrong =
      check_bench_output(*measured.operation, pattern, measured.shape, vectors);
  double any_wrong = wrong.empty() ? 0 : 1;
  subject.max_over_ranks({&any_wrong, 1});
  if (any_wrong == 0) return;
  throw_error<Error>("{} of {} bytes between {} ranks gives a wrong result: {}",
                     measured.operation->name, measured.bytes(), subject.size,
                     wrong.empty() ? "on another rank" : wrong);
}

BenchResult measure(const BenchSubject& subject, const BenchCase& measured,
                    std::span<std::byte> memory, const BenchTiming& timing) {
  TRIREME_CHECK_LE(BenchTiming::kMinSamples, timing.max_samples, "samples of a case");
  BenchVectors vectors =
      place_bench_vectors(*measured.operation, measured.shape, measured.dtype, memory);
  if (subject.reduce_scatter_in_place && measured.operation->op == BenchOp::kReduceScatter) {
    vectors.output.data = vectors.input.data;
  }
  verify(subject, measured, vectors);
  const double one = warm_up(subject, measured, vectors);
  BenchResult result;
  result.operations_per_sample = times_in(kSampleSeconds, one, 1, 10000);
  result.samples = static_cast<int>(
      times_in(timing.seconds, one * static_cast<double>(result.operations_per_sample),
               BenchTiming::kMinSamples, timing.max_samples));
  std::vector<double> samples =
      sample_all(subject, measured, vectors, result.samples, result.operations_per_sample);
  for (double& sample : samples) sample *= 1e6;
  result.us = spread_of(std::move(samples));
  return result;
}

}  // namespace trireme
