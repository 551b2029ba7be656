// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/range_calls.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/comm/meeting/frame.h"
#include "trireme/comm/rpc/server.h"

namespace trireme::ps {
namespace {

using Milliseconds = std::chrono::milliseconds;

// A server that holds an answer back because it waits for others is asked again after this: the
// request may have been lost with a connection.
constexpr Milliseconds kAskAgain = std::chrono::seconds(20);
constexpr Milliseconds kSoon{2};
constexpr Milliseconds kLater{100};
constexpr Milliseconds kNoLaterThan{50};  // the thread looks at least so often

std::string name_of(Method method) {
  switch (method) {
    case Method::kInit:
      return "init";
    case Method::kPush:
      return "push";
    case Method::kCommit:
      return "commit";
    case Method::kSnapshot:
      return "snapshot";
    case Method::kEnter:
      return "enter";
    default:
      return "pull";
  }
}

}  // namespace

RangeCalls::RangeCalls(PeerClients& peers, Milliseconds timeout)
    : peers_(peers), timeout_(timeout), thread_([this] { send_again(); }) {}

RangeCalls::~RangeCalls() { close(); }

void RangeCalls::close() {
  fail(std::make_exception_ptr(CommError("this worker has left the job")));
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  work_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void RangeCalls::enter_view(const View& view) {
  peers_.enter_view(view.servers);
  std::vector<SentPtr> lost;
  {
    const std::lock_guard lock(mutex_);
    if (view.term > view_.term) view_ = view;
    lost = lost_sums();
  }
  changed_.notify_all();
  work_.notify_all();
  for (const SentPtr& sent : lost) again(sent, Milliseconds(0), 0);
}

// Pushes to be sent again, as the first of their range. Where there is another, that is a commit or
// a push, which sends the one before it when need be.
std::vector<RangeCalls::SentPtr> RangeCalls::lost_sums() {
  std::vector<SentPtr> lost;
  for (auto& [range, summed] : summed_) {
    std::deque<SentPtr>& queue = in_order_[range];
    if (summed.term >= view_.term || !queue.empty()) continue;
    summed.term = view_.term;
    queue.push_back(std::make_shared<Sent>(
        Sent{summed.push, 0, Deadline::after(timeout_), false, true, {}, 0}));
    lost.push_back(queue.back());
  }
  return lost;
}

void RangeCalls::remember_sum(const SentPtr& sent, Term term) {
  const std::lock_guard lock(mutex_);
  summed_[sent->call->header.range] = {sent->call, term};
}

void RangeCalls::fail(std::exception_ptr error) {
  {
    const std::lock_guard lock(mutex_);
    if (failure_ == nullptr) failure_ = std::move(error);
  }
  changed_.notify_all();
}

View RangeCalls::wait_for_view(const Deadline& deadline, WorkerId member) {
  std::unique_lock lock(mutex_);
  const auto is_there = [this, member] {
    return view_.term > 0 &&
           (member == kNobody ||
            std::any_of(view_.workers.begin(), view_.workers.end(),
                        [member](const WorkerView& worker) { return worker.id == member; }));
  };
  changed_.wait_until(lock, deadline.time_point(),
                      [&] { return is_there() || failure_ != nullptr; });
  if (failure_ != nullptr) std::rethrow_exception(failure_);
  if (!is_there()) {
    throw_error<TimeoutError>("the job has not begun: servers or workers are missing");
  }
  return view_;
}

void RangeCalls::wait_for_others_to_leave(const Deadline& deadline) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, deadline.time_point(), [this] {
    return (view_.term > 0 && view_.workers.size() <= 1) || failure_ != nullptr;
  });
  if (failure_ != nullptr) std::rethrow_exception(failure_);
  if (view_.workers.size() <= 1) return;
  std::vector<int> ranks;
  for (const WorkerView& worker : view_.workers) ranks.push_back(worker.rank);
  throw_error<TimeoutError>("workers {} have not all left but one", fmt::join(ranks, ", "));
}

Timestamp RangeCalls::begin(std::size_t calls) {
  const std::lock_guard lock(mutex_);
  if (failure_ != nullptr) std::rethrow_exception(failure_);
  const Timestamp timestamp = next_++;
  if (calls > 0) progress_[timestamp].left = calls;
  return timestamp;
}

// Pushes of one range: the servers take them in the order of their steps.
bool RangeCalls::in_order(const RangeCall& call) {
  return call.method == Method::kPush || call.method == Method::kCommit;
}

void RangeCalls::send(Timestamp timestamp, std::shared_ptr<RangeCall> call) {
  const auto sent = std::make_shared<Sent>(
      Sent{std::move(call), timestamp, Deadline::after(timeout_), false, false, {}, 0});
  if (in_order(*sent->call)) {
    const std::lock_guard lock(mutex_);
    std::deque<SentPtr>& queue = in_order_[sent->call->header.range];
    queue.push_back(sent);
    if (queue.size() > 1) return;
  }
  try_now(sent, false);
}

// Sends it to the primary of its range as the newest view has it.
void RangeCalls::try_now(const SentPtr& sent, bool may_connect) {
  const bool again = sent->push_again;
  RangeCall& call = again ? *sent->call->push : *sent->call;
  ServerId server = kNobody;
  {
    const std::lock_guard lock(mutex_);
    if (view_.term > 0) server = view_.ranges[call.header.range].primary;
    call.header.term = view_.term;
  }
  const std::shared_ptr<RpcClient> client =
      may_connect ? peers_.connect(server) : peers_.connected(server);
  if (client == nullptr) return this->again(sent, may_connect ? kLater : Milliseconds(0), 0);
  if (call.pack && !client->shares_memory()) std::exchange(call.pack, nullptr)(call);
  RpcCall rpc{.method = static_cast<std::uint32_t>(call.method),
              .header = encode(call.header),
              .payload = {},
              .reply_space = call.reply_space,
              .priority = call.priority,
              .timeout = std::min(kAskAgain, sent->deadline.remaining())};
  if (!call.payload.empty()) rpc.payload.push_back(call.payload);
  client->call(std::move(rpc), [this, sent](const RpcReply& reply) { answered(sent, reply); });
}

void RangeCalls::answered(const SentPtr& sent, const RpcReply& reply) {
  if (reply.error != nullptr) return again(sent, kLater, 0);
  if (reply.status == kRpcAbandoned || reply.status == kStatusNotHere) {
    return again(sent, kLater, 0);
  }
  RangeReply header;
  try {
    header = decode<RangeReply>(reply.header);
  } catch (const ProtocolError&) {
    return finish(sent, std::current_exception());
  }
  if (reply.status == kStatusRefused) {
    return finish(sent, std::make_exception_ptr(CommError(fmt::format(
                            "{} of range {} is refused: {}", name_of(sent->call->method),
                            sent->call->header.range, header.text))));
  }
  switch (static_cast<Answer>(reply.status)) {
    case Answer::kSummed:
      if (sent->push_again) {
        sent->push_again = false;
        return try_now(sent, false);
      }
      remember_sum(sent, header.term);
      if (sent->call->done && !sent->repeated) sent->call->done(header, reply.payload_bytes);
      return finish(sent, nullptr);
    case Answer::kDone:
      if (sent->push_again) {
        // The step was applied before its sum was lost from sight.
        sent->push_again = false;
        return try_now(sent, false);
      }
      if (sent->call->done && !sent->repeated) sent->call->done(header, reply.payload_bytes);
      return finish(sent, nullptr);
    case Answer::kRetry:
      if (sent->call->method == Method::kCommit && sent->call->push != nullptr) {
        sent->push_again = true;
      }
      return again(sent, kSoon, header.term);
    case Answer::kNotMember:
      return finish(sent, std::make_exception_ptr(PeerLostError(
                              -1, "this worker was taken for gone and dropped from the job")));
    case Answer::kOutOfOrder:
      // The step before is summed, and another worker's commit() is yet to come.
      if (sent->call->method != Method::kPush || sent->call->push == nullptr) break;
      sent->push_again = true;
      return again(sent, kSoon, 0);
  }
  finish(sent, std::make_exception_ptr(InternalError(fmt::format(
                   "{} of range {} in step {} is out of order", name_of(sent->call->method),
                   sent->call->header.range, sent->call->header.asker.clock))));
}

void RangeCalls::again(const SentPtr& sent, Milliseconds pause, Term term) {
  {
    const std::lock_guard lock(mutex_);
    sent->not_before = Deadline::Clock::now() + pause;
    sent->term = term;
    waiting_.push_back(sent);
  }
  work_.notify_all();
}

void RangeCalls::finish(const SentPtr& sent, std::exception_ptr error) {
  SentPtr next;
  std::vector<SentPtr> lost;
  bool done = false;
  {
    const std::lock_guard lock(mutex_);
    const auto found = progress_.find(sent->timestamp);
    if (found != progress_.end()) {
      if (error != nullptr && found->second.error == nullptr) found->second.error = error;
      done = --found->second.left == 0 || error != nullptr;
      if (found->second.left == 0 && found->second.error == nullptr) progress_.erase(found);
    }
    if (in_order(*sent->call)) {
      std::deque<SentPtr>& queue = in_order_[sent->call->header.range];
      queue.pop_front();
      if (!queue.empty()) next = queue.front();
      if (sent->call->method == Method::kCommit) summed_.erase(sent->call->header.range);
      if (sent->call->method == Method::kPush) sent->call->push = nullptr;
      lost = lost_sums();
    }
  }
  if (done) changed_.notify_all();
  if (next != nullptr) try_now(next, false);
  for (const SentPtr& push : lost) again(push, Milliseconds(0), 0);
}

// The deadline has passed. The server says for whom it waits.
void RangeCalls::give_up(const SentPtr& sent) {
  const RangeCall& call = *sent->call;
  ServerId server = kNobody;
  bool first_worker = false;
  {
    const std::lock_guard lock(mutex_);
    if (view_.term > 0) server = view_.ranges[call.header.range].primary;
    first_worker = !view_.workers.empty() && view_.workers.front().rank == 0;
  }
  std::string awaited;
  if (const auto client = peers_.connect(server)) {
    try {
      const RpcReply reply = client->call({.method = static_cast<std::uint32_t>(Method::kReport),
                                           .header = {},
                                           .payload = {},
                                           .reply_space = {},
                                           .timeout = std::chrono::seconds(2)});
      const auto report = decode<ServerReport>(reply.header);
      if (!report.awaited.empty()) {
        awaited = fmt::format("; it waits for worker {}", fmt::join(report.awaited, ", worker "));
      }
      if (report.ranges_without_values > 0) {
        awaited = fmt::format("; its first values were never given (init()): worker 0 is {}",
                              first_worker ? "there" : "gone");
      }
    } catch (const std::exception&) {
      awaited = "; it does not answer";
    }
  }
  finish(sent,
         std::make_exception_ptr(TimeoutError(fmt::format(
             "{} of range {} in step {} had no answer for {} s from {}{}", name_of(call.method),
             call.header.range, call.header.asker.clock,
             std::chrono::duration<double>(timeout_).count(), peers_.describe(server), awaited))));
}

void RangeCalls::send_again() {
  std::unique_lock lock(mutex_);
  while (!closing_) {
    const auto now = Deadline::Clock::now();
    std::vector<SentPtr> ready, late;
    std::erase_if(waiting_, [&](const SentPtr& sent) {
      if (sent->deadline.expired()) {
        late.push_back(sent);
        return true;
      }
      if (sent->not_before > now || sent->term > view_.term) return false;
      ready.push_back(sent);
      return true;
    });
    if (ready.empty() && late.empty()) {
      auto until = now + kNoLaterThan;
      for (const SentPtr& sent : waiting_) {
        if (sent->term <= view_.term) until = std::min(until, sent->not_before);
      }
      work_.wait_until(lock, until);
      continue;
    }
    lock.unlock();
    for (const SentPtr& sent : ready) try_now(sent, true);
    for (const SentPtr& sent : late) give_up(sent);
    lock.lock();
  }
}

void RangeCalls::wait(Timestamp timestamp) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] {
    const auto found = progress_.find(timestamp);
    return failure_ != nullptr || found == progress_.end() || found->second.error != nullptr;
  });
  const auto found = progress_.find(timestamp);
  if (found == progress_.end()) return;
  std::rethrow_exception(found->second.error != nullptr ? found->second.error : failure_);
}

void RangeCalls::wait_all() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] {
    return failure_ != nullptr || progress_.empty() ||
           std::any_of(progress_.begin(), progress_.end(),
                       [](const auto& entry) { return entry.second.error != nullptr; });
  });
  for (const auto& [timestamp, progress] : progress_) {
    if (progress.error != nullptr) std::rethrow_exception(progress.error);
  }
  if (!progress_.empty()) std::rethrow_exception(failure_);
}

}  // namespace trireme::ps
