// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Worker: pushes gradients to a job's servers and pulls weights from them.
//
//   ps::Worker worker(worker_options(launch_info()), layout);  // train/parameter_server_job.h
//   if (worker.rank() == 0) worker.wait(worker.init());        // the servers start from weights()
//   for (worker.wait(worker.pull()); worker.clock() < steps;) {
//     compute(worker.weights(), worker.gradients());
//     worker.wait(worker.push({.learning_rate = 0.1, .then_pull = true}));
//     worker.end_step();
//   }
//   worker.leave();
//
// In each step a worker pushes once to each range (end_step() does so, without a contribution,
// where it has not). What a pull gives, and for whom it waits, the job's consistency says
// (protocol/view.h). Everything that is called push, pull, init or commit is asynchronous: it
// returns a timestamp to wait() for, until which its memory must be left alone.
//
// When a server is lost, what was not acknowledged is sent again to who has taken its place; the
// caller sees a delay, and nothing else. Errors, of wait() and of all later calls: PeerLostError,
// this worker was taken for gone (a new Worker may join in its place); TimeoutError, which names
// the ranks that are waited for; CommError, the job is lost or the coordinator is gone.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "trireme/comm/shared_buffer.h"
#include "trireme/ps/job_layout.h"
#include "trireme/ps/messages.h"

namespace trireme::ps {

struct WorkerOptions {
  std::string coordinator_address = "127.0.0.1";
  int coordinator_port = 0;
  std::string secret = {};  // the job's; may be empty only on loopback
  int rank = 0;  // below the job's number of workers; none that another has, while it lives
  std::string codec = {};  // of dense gradients: "" (f32), bf16, int8, topk(f); see dense_codec.h
  std::chrono::milliseconds join_timeout = std::chrono::minutes(5);
  std::chrono::milliseconds timeout = std::chrono::minutes(5);  // of everything that is waited for
};

using Timestamp = std::int64_t;

struct PushOptions {
  double learning_rate = 0;
  // Multiplied with the mean of the contributions, which count by their weight.
  double gradient_scale = 1;
  double weight = 1;
  bool skip = false;       // of a commit: the step counts, its sum is not applied
  bool then_pull = false;  // the weights of the next step come with the answer
  int priority = 0;        // higher ones leave first: what the next forward needs first
  // Summed over the contributions, for SumReport and last_extras(): losses, say.
  std::vector<double> extras = {};
  bool empty = false;  // of a push: no gradient, extras alone
  // The contribution is weights, by no codec: the sum takes the place of the range's, and the
  // optimizer stays as it is. Of a push and of its commit; one worker's, the others' are empty.
  bool assign = false;
};

// Two phases: the sum of a range's gradients, which is not applied yet.
struct SumReport {
  double weight = 0;
  std::vector<double> extras;
  std::vector<double> block_sums;  // of squares (optim/gradient_norm.h)
  // Another worker has committed the step before this one saw its sum, which is lost: the
  // gradient_scale that it gave, 0 where it skipped the step.
  std::optional<double> committed_scale;
};

// Rows of one table. Pushed ids are distinct.
struct PushRows {
  std::uint64_t table = 0;  // its number in the layout
  std::span<const std::uint64_t> ids;
  const float* gradients = nullptr;  // [ids, width]
};
struct PullRows {
  std::uint64_t table = 0;
  std::span<const std::uint64_t> ids;
  float* rows = nullptr;  // [ids, width]
};

// One thread at a time, but for wait(), which any may call.
class Worker {
 public:
  // Joins the job, or joins it again; all workers give the same layout. Blocks until all servers
  // and workers of the job's beginning are there. Throws ConfigError: a layout or a codec that is
  // none, another layout than the first's (says what differs), a rank out of range; what RpcClient
  // throws; TimeoutError.
  Worker(const WorkerOptions& options, const JobLayout& layout);
  ~Worker();  // without leave(): the others see it gone
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  int rank() const;
  // As it was given, but for first_step where the job had begun before this worker came.
  const JobLayout& layout() const;
  // The step that this worker is in. A worker that joins later begins with the others' step.
  std::int64_t clock() const;
  // The job had begun before this worker came: the servers hold weights already.
  bool came_later() const;

  // Memory that servers of this host use in place: rows whose gradients all lie in one such memory,
  // and that are wanted in one, are not copied by this process. It may go when the worker is gone.
  SharedBuffer allocate(std::size_t bytes);
  // The dense buffer: zeros at first, of layout().dense.size elements each.
  std::span<float> weights();
  std::span<float> gradients();
  std::size_t num_dense_ranges() const;
  FlatSegment dense_range(std::size_t range) const;

  // The servers' first values become weights() and empty tables; without effect where they have
  // some.
  Timestamp init();
  // The same from the states of all dense ranges, as dense_state() gave them, or of all ranges
  // (deal_slices(), range_storage.h).
  Timestamp init_states(std::span<const std::vector<std::byte>> states);
  // The same from the files of a snapshot (snapshot.h), which the servers read.
  struct RangeFile {
    std::string path;
    std::string digest;
  };
  Timestamp init(std::span<const RangeFile> files);  // by range

  // gradients(), of one dense range or of all.
  Timestamp push(std::size_t range, const PushOptions& options);
  Timestamp push(const PushOptions& options);
  // weights(), of one dense range or of all.
  Timestamp pull(std::size_t range, int priority = 0);
  Timestamp pull();
  // Two phases: when push() is done, the sum of the range; and its application. Each worker that
  // has pushed gradients commits before it pushes the range again; the first to do so says with
  // what options. Where the sum is lost meanwhile the push is repeated.
  const SumReport& sum(std::size_t range) const;
  Timestamp commit(std::size_t range, const PushOptions& options);
  // Of the last update of the range, when a push (or commit) with then_pull is done.
  const std::vector<double>& last_extras(std::size_t range) const;

  // Rows of sparse tables. push_rows(): once in a step; its worker counts in the mean of all rows,
  // whatever it has of them. With pull the rows wanted for the next step come with the answer.
  Timestamp push_rows(std::span<const PushRows> push, const PushOptions& options,
                      std::span<const PullRows> pull = {});
  Timestamp pull_rows(std::span<const PullRows> pull);

  // Blocks until it is done. Throws what ended it.
  void wait(Timestamp timestamp);
  // Pushes nothing where nothing was pushed, and goes on to the next step. Does not block.
  void end_step();
  // Blocks until everything is done.
  void wait_all();

  // The state of each range as of this worker's step, to files of these paths that the servers
  // write; returns their digests. Or the state of a dense range as bytes. Block. Throw CommError
  // where a file cannot be written: says why.
  std::vector<std::string> save_ranges(const std::vector<std::string>& paths);
  std::vector<std::byte> dense_state(std::size_t range);

  // What the servers that answer have seen so far. Blocks.
  ServerReport report();

  // Blocks until no other worker is in the job: they have done their work, or are gone, and one
  // that came now would be alone. For who has the last word: evaluates, saves. Throws TimeoutError,
  // which names the ranks that are there still, and what wait() throws.
  void wait_for_others_to_leave();
  // Done: waits for everything, then tells the coordinator. Idempotent.
  void leave();

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace trireme::ps
