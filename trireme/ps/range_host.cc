// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What arrives at a range, and what goes to its followers.

#include "trireme/ps/range_host.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/comm/meeting/frame.h"
#include "trireme/ps/state_file.h"

namespace trireme::ps {
namespace {

constexpr std::size_t kStatePartBytes = std::size_t{64} << 20;

double now_us() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::micro>(now).count();
}

}  // namespace

RangeHost::RangeHost(RangeContext& context, Strands& strands, ServerId self,
                     const JobLayout& layout, std::uint32_t number)
    : context_(context),
      layout_(layout),
      number_(number),
      replica_(self, {layout.consistency, layout.two_phases}),
      storage_(make_storage(layout, number)),
      strand_(strands) {}

// Arrivals

// A request that is wrong is answered; anything else that goes wrong here is the server's end.
void RangeHost::guarded(const std::function<void()>& act) {
  try {
    act();
  } catch (const std::exception& error) {
    context_.fail(fmt::format("range {}: {}", number_, error.what()));
  }
}

void RangeHost::enter_view(Term term, const RangeView& range,
                           const std::vector<WorkerView>& workers) {
  strand_.post([this, term, range, workers] {
    guarded([&] {
      replica_.enter_view(term, range, workers);
      sum_ = {};
      if (!replica_.is_primary()) last_extras_.clear();  // of an update that was not its last
      perform();
      for (Open& early : std::exchange(early_, {})) {
        admit(early.method, std::move(early.header), std::move(early.request));
      }
    });
  });
}

void RangeHost::handle(Method method, RangeRequest header, RpcRequest request) {
  // std::function wants what can be copied.
  auto shared = std::make_shared<RpcRequest>(std::move(request));
  strand_.post([this, method, header = std::move(header), shared]() mutable {
    guarded([&] { admit(method, std::move(header), std::move(*shared)); });
  });
}

void RangeHost::handle(Method method, Replication header, RpcRequest request) {
  auto shared = std::make_shared<RpcRequest>(std::move(request));
  strand_.post([this, method, header = std::move(header), shared] {
    guarded([&] { take_replication(method, header, std::move(*shared)); });
  });
}

// Requests of workers

void RangeHost::refuse(RpcRequest& request, std::uint32_t status, const std::string& why) {
  request.reply(status, encode(RangeReply{
                            .term = replica_.term(), .extras = {}, .block_sums = {}, .text = why}));
}

void RangeHost::check_request(Method method, const RangeRequest& header,
                              const RpcRequest& request) const {
  if (method == Method::kCommit || method == Method::kEnter) return;
  if (header.assign && (!header.codec.empty() || number_ >= layout_.dense_ranges().size())) {
    throw_error<ProtocolError>("weights are assigned to dense ranges, and by no codec");
  }
  const Contribution contribution{request.payload(), header.codec, header.lists};
  if (method == Method::kPush && !header.empty) storage_->check(contribution);
  if (method == Method::kPush && !header.then_read) return;
  if (method == Method::kInit || method == Method::kSnapshot) return;
  if (const std::size_t bytes = storage_->read_bytes(contribution); bytes > request.reply_room()) {
    throw_error<ProtocolError>("{} bytes of values are wanted, in room for {}", bytes,
                               request.reply_room());
  }
}

void RangeHost::admit(Method method, RangeRequest header, RpcRequest request) {
  if (header.term > replica_.term()) {
    early_.push_back({method, std::move(header), std::move(request)});
    return;
  }
  BufferPool::Buffer loaded;
  try {
    check_request(method, header, request);
    if (method == Method::kInit) {
      const bool of_file = !header.file.empty();
      if (of_file) {
        read_state_file(header.file, header.digest, [&](std::size_t bytes) {
          loaded = context_.buffers().get(bytes);
          return loaded.bytes();
        });
      }
      storage_->check_init(of_file ? Bytes(loaded.bytes()) : request.payload());
    }
  } catch (const Error& error) {
    return refuse(request, kStatusRefused, error.what());
  }
  const Ticket ticket = next_ticket_++;
  const Term term = header.term;
  const Asker asker = header.asker;
  const bool then_read = header.then_read;
  open_.emplace(ticket,
                Open{method, std::move(header), std::move(request), now_us(), std::move(loaded)});
  switch (method) {
    case Method::kInit:
      replica_.init(ticket, term);
      break;
    case Method::kPush:
      replica_.push(ticket, asker, then_read, term);
      break;
    case Method::kCommit:
      replica_.commit(ticket, asker, then_read, term);
      break;
    case Method::kPull:
    case Method::kSnapshot:
      replica_.pull(ticket, asker, term);
      break;
    case Method::kPeek:
      replica_.peek(ticket, term);
      break;
    default:
      replica_.enter(ticket, asker.worker, term);
      break;
  }
  perform();
}

// Messages of the primary

void RangeHost::take_replication(Method method, const Replication& header, RpcRequest request) {
  cause_ = {&header, request.payload(), -1};
  if (method == Method::kReplicate) {
    replica_.replicate(header.term, header.position, header.op);
  } else if (collect_state(header, request.payload())) {
    cause_.payload = incoming_;
    replica_.take_state(header.term, header.state);
  }
  perform();
  if (method == Method::kTakeState && header.part + 1 == header.parts) {
    incoming_ = {};
    incoming_parts_ = 0;
  }
  request.reply(kStatusOk, encode(Replicated{replica_.term(), cause_.acknowledged}));
  cause_ = {};
}

// Parts come in order; one that begins again replaces what came before. True: all are there.
bool RangeHost::collect_state(const Replication& header, Bytes part) {
  if (header.part == 0) {
    incoming_.clear();
    incoming_parts_ = 0;
    incoming_term_ = header.term;
  }
  if (header.part != incoming_parts_ || header.term != incoming_term_) return false;
  incoming_.insert(incoming_.end(), part.begin(), part.end());
  return ++incoming_parts_ == header.parts;
}

// Replication

void RangeHost::replicate(ServerId to, std::int64_t position) {
  const auto found = log_.find(position);
  TRIREME_ASSERT(found != log_.end(), "change {} of range {} is not kept", position, number_);
  const Change& change = found->second;
  const Replication header{.range = number_,
                           .term = replica_.term(),
                           .position = position,
                           .op = change.op,
                           .learning_rate = change.scalars.learning_rate,
                           .gradient_scale = change.scalars.gradient_scale,
                           .empty = change.empty,
                           .assign = change.assign,
                           .committed_scale = change.committed_scale,
                           .state = {}};
  send(to, Method::kReplicate, header, change.payload, nullptr);
}

// keep: what the payload lies in, or null where it outlives the answer anyway.
void RangeHost::send(ServerId to, Method method, const Replication& header, Bytes payload,
                     std::shared_ptr<const void> keep) {
  ++sending_;
  context_.send(to, method, header, payload,
                [this, to, keep = std::move(keep)](std::optional<Replicated> reply) {
                  strand_.post([this, to, reply] {
                    guarded([&] {
                      --sending_;
                      // Where nothing was acknowledged the next view, or tick(), goes on.
                      if (!reply || reply->position < 0) return;
                      replica_.acknowledge(to, reply->term, reply->position);
                      perform();
                    });
                  });
                });
}

void RangeHost::tick() {
  strand_.post([this] {
    guarded([&] {
      if (sending_ > 0) return;
      replica_.resend();
      perform();
    });
  });
}

void RangeHost::send_state(ServerId to) {
  auto state = std::make_shared<std::vector<std::byte>>();
  storage_->export_state(
      [&](Bytes part) { state->insert(state->end(), part.begin(), part.end()); });
  const auto parts = static_cast<std::uint32_t>(
      std::max<std::size_t>(state->size() + kStatePartBytes - 1, 1) / kStatePartBytes);
  for (std::uint32_t part = 0; part < std::max(parts, 1U); ++part) {
    const Replication header{.range = number_,
                             .term = replica_.term(),
                             .position = replica_.state().applied,
                             .op = {},
                             .committed_scale = committed_scale_,
                             .state = replica_.state(),
                             .part = part,
                             .parts = std::max(parts, 1U)};
    const std::size_t begin = part * kStatePartBytes;
    const Bytes bytes =
        Bytes(*state).subspan(begin, std::min(kStatePartBytes, state->size() - begin));
    send(to, Method::kTakeState, header, bytes, state);
  }
}

void RangeHost::discard() {
  log_.clear();
  sum_ = {};
  storage_ = make_storage(layout_, number_);
}

void RangeHost::add_to(ServerReport& report) const {
  const std::lock_guard lock(report_mutex_);
  report.updates += report_.updates;
  const auto add = [](auto& to, const auto& from) {
    to.resize(std::max(to.size(), from.size()));
    for (std::size_t i = 0; i < from.size(); ++i) to[i] += from[i];
  };
  add(report.staleness, report_.staleness);
  add(report.waited_for_us, report_.waited_for_us);
  report.rows += report_.rows;
  report.memory_bytes += report_.memory_bytes;
  report.ranges_without_values += report_.ranges_without_values;
  for (const std::int32_t rank : report_.awaited) {
    if (std::find(report.awaited.begin(), report.awaited.end(), rank) == report.awaited.end()) {
      report.awaited.push_back(rank);
    }
  }
}

}  // namespace trireme::ps
