// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// RangeHost: one range on one server: the protocol (protocol/range_replica.h), the values
// (range_storage.h) and the requests that wait for their answers, brought together. What arrives is
// posted to the range's strand and worked off there, in order and on one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/comm/rpc/server.h"
#include "trireme/ps/buffer_pool.h"
#include "trireme/ps/job_layout.h"
#include "trireme/ps/messages.h"
#include "trireme/ps/protocol/range_replica.h"
#include "trireme/ps/range_storage.h"
#include "trireme/ps/strands.h"

namespace trireme::ps {

// What a range needs of its server. Any thread.
class RangeContext {
 public:
  virtual ~RangeContext() = default;
  virtual BufferPool& buffers() = 0;
  // To another server; done runs once, on any thread, with nothing where there was no answer. The
  // payload stays as it is until then.
  virtual void send(ServerId to, Method method, const Replication& header, Bytes payload,
                    std::function<void(std::optional<Replicated>)> done) = 0;
  virtual void report_ready(Term term, std::uint32_t range) = 0;
  // False: this server may have been taken for gone, and others hold its ranges.
  virtual bool lease_holds() const = 0;
  // The server cannot go on.
  virtual void fail(const std::string& why) = 0;
};

// Any thread may call any function. The context must outlive it; destroy it when the strands have
// stopped.
class RangeHost {
 public:
  RangeHost(RangeContext& context, Strands& strands, ServerId self, const JobLayout& layout,
            std::uint32_t number);

  void enter_view(Term term, const RangeView& range, const std::vector<WorkerView>& workers);
  // Of a worker.
  void handle(Method method, RangeRequest header, RpcRequest request);
  // Of the other replica.
  void handle(Method method, Replication header, RpcRequest request);

  // From time to time: what was lost on the way to followers is sent again.
  void tick();
  // Adds what this range has seen.
  void add_to(ServerReport& report) const;

 private:
  struct Open {  // a request without an answer
    Method method;
    RangeRequest header;
    RpcRequest request;
    double arrived_us = 0;
    BufferPool::Buffer loaded = {};  // kInit: what its file holds
    // For the answer.
    std::size_t read_bytes = 0;
    std::int64_t clock = 0;
    std::string text = {};
    bool failed = false;  // kSnapshot: the file could not be written, and text says why
    bool late = false;    // the lease was over: nothing was read
  };
  // An update, or another change, as followers get it.
  struct Change {
    Op op;
    BufferPool::Buffer memory;
    Bytes payload;           // in memory, or in a request that is still open
    std::string_view lists;  // in a request that is still open
    // In place of a payload: what it is the sum of, in requests that are still open.
    std::vector<Contribution> contributions;
    bool empty = true;
    bool assign = false;  // PushOptions'
    UpdateScalars scalars;
    double committed_scale = -1;  // RangeReply's
  };
  // Two phases: what the workers have been told of.
  struct Sum {
    BufferPool::Buffer memory;
    Bytes payload;
    std::string_view lists;                   // in a request that is still open
    std::vector<Contribution> contributions;  // as Change's
    bool empty = true;
    double weight = 0;
    std::vector<double> extras;
    std::vector<double> block_sums;
  };
  using OpenRequests = std::map<Ticket, Open>;

  // On the strand.
  void guarded(const std::function<void()>& act);
  void admit(Method method, RangeRequest header, RpcRequest request);
  void refuse(RpcRequest& request, std::uint32_t status, const std::string& why);
  void check_request(Method method, const RangeRequest& header, const RpcRequest& request) const;
  void take_replication(Method method, const Replication& header, RpcRequest request);
  bool collect_state(const Replication& header, Bytes part);
  void perform();
  void perform_effects();
  void perform_one(const Effect& effect);
  Sum sum_of(const std::vector<Ticket>& tickets, bool keep);
  Ticket ticket_of_scalars(const Effect& effect) const;
  Change change_of(const Effect& effect);
  void apply(const Change& change);
  void apply_and_read(const Change& change, std::span<const Effect> reads);
  std::size_t reads_after(std::span<const Effect> effects) const;
  bool prepare_read(Open& open);
  static Contribution wanted_by(const Open& open);
  void count_update();
  void read(Ticket ticket);
  void answer(const Effect& effect);
  void replicate(ServerId to, std::int64_t position);
  void send_state(ServerId to);
  void send(ServerId to, Method method, const Replication& header, Bytes payload,
            std::shared_ptr<const void> keep);
  void write_snapshot(Open& open);
  void discard();
  void count_wait(const std::vector<Ticket>& tickets);

  // Constant after construction.
  RangeContext& context_;
  const JobLayout& layout_;
  const std::uint32_t number_;

  // The strand's alone.
  RangeReplica replica_;
  std::unique_ptr<RangeStorage> storage_;
  OpenRequests open_;
  std::vector<Open> early_;  // of a term that this server has not entered yet
  Ticket next_ticket_ = 1;
  Sum sum_;
  bool applies_nothing_ = false;  // nobody contributed to the sum: no one need commit() it
  std::vector<double> last_extras_;
  double committed_scale_ = -1;         // of the last update
  std::map<std::int64_t, Change> log_;  // by position: what followers may still need
  struct {                              // the message of the primary under way
    const Replication* header = nullptr;
    Bytes payload;
    std::int64_t acknowledged = -1;
  } cause_;
  std::vector<std::byte> incoming_;  // parts of a state
  std::uint32_t incoming_parts_ = 0;
  bool reported_without_values_ = false;
  int sending_ = 0;  // messages to followers without an answer yet
  Term incoming_term_ = 0;

  mutable std::mutex report_mutex_;
  ServerReport report_;  // guarded by report_mutex_

  Strands::Strand strand_;
};

}  // namespace trireme::ps
