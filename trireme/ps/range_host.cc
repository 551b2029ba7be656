// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/range_host.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/base/log.h"
#include "trireme/comm/meeting/frame.h"
#include "trireme/ps/state_file.h"

namespace trireme::ps {
namespace {

constexpr std::size_t kStatePartBytes = std::size_t{64} << 20;
constexpr std::size_t kMostStaleness = 256;
constexpr Ticket kNoTicket = 0;  // of what the range does by itself

double now_us() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::micro>(now).count();
}

void add_all(std::vector<double>& to, const std::vector<double>& from) {
  to.resize(std::max(to.size(), from.size()));
  for (std::size_t i = 0; i < from.size(); ++i) to[i] += from[i];
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
  std::vector<std::byte> loaded;
  try {
    check_request(method, header, request);
    if (!header.file.empty() && method == Method::kInit) {
      loaded = read_state_file(header.file, header.digest);
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

// Effects

void RangeHost::perform() {
  perform_effects();
  while (std::exchange(applies_nothing_, false)) {
    const std::int64_t step = replica_.slowest_clock();
    for (const Member& member : std::vector<Member>(replica_.state().members)) {
      if (member.clock == step)
        replica_.commit(kNoTicket, {member.worker, step}, false, replica_.term());
    }
    perform_effects();
  }
  const bool without_values = !open_.empty() && !replica_.state().initialized;
  if (layout_.consistency.bound == Consistency::kUnbounded && !without_values &&
      !reported_without_values_) {
    return;
  }
  reported_without_values_ = without_values;
  std::vector<int> awaited;
  if (!open_.empty()) awaited = replica_.awaited_ranks();
  const std::lock_guard lock(report_mutex_);
  report_.ranges_without_values = without_values ? 1 : 0;
  report_.awaited.assign(awaited.begin(), awaited.end());
}

void RangeHost::perform_effects() {
  for (std::vector<Effect> effects = replica_.take_effects(); !effects.empty();
       effects = replica_.take_effects()) {
    for (std::size_t i = 0; i < effects.size(); ++i) {
      const Effect& effect = effects[i];
      if (effect.kind != Effect::Kind::kApply) {
        perform_one(effect);
        continue;
      }
      Change change = change_of(effect);
      const auto follows = [&] {
        return i + 1 < effects.size() && effects[i + 1].kind == Effect::Kind::kReplicate;
      };
      if (!follows()) {
        apply(change);
        continue;
      }
      // Followers work on it while we do.
      const auto [logged, is_new] = log_.insert_or_assign(effect.position, std::move(change));
      while (follows()) perform_one(effects[++i]);
      apply(logged->second);
    }
  }
}

void RangeHost::perform_one(const Effect& effect) {
  switch (effect.kind) {
    case Effect::Kind::kSum:
      count_wait(effect.tickets);
      sum_ = sum_of(effect.tickets, true);
      applies_nothing_ = sum_.empty;
      if (!sum_.empty) sum_.block_sums = storage_->block_sums(sum_.payload);
      return;
    case Effect::Kind::kRead:
      return read(effect.ticket);
    case Effect::Kind::kAnswer:
      return answer(effect);
    case Effect::Kind::kReplicate:
      return replicate(effect.to, effect.position);
    case Effect::Kind::kForget:
      log_.erase(log_.begin(), log_.upper_bound(effect.position));
      return;
    case Effect::Kind::kSendState:
      return send_state(effect.to);
    case Effect::Kind::kTakeState:
      committed_scale_ = cause_.header->committed_scale;
      return storage_->import_state(cause_.payload);
    case Effect::Kind::kAcknowledge:
      cause_.acknowledged = effect.position;
      return;
    case Effect::Kind::kReport:
      return context_.report_ready(replica_.term(), number_);
    case Effect::Kind::kDiscard:
      return discard();
    case Effect::Kind::kApply:
      return;
  }
}

// keep: in memory that outlives the requests.
RangeHost::Sum RangeHost::sum_of(const std::vector<Ticket>& tickets, bool keep) {
  Sum sum;
  std::vector<Contribution> contributions;
  for (const Ticket ticket : tickets) {
    const Open& open = open_.at(ticket);
    add_all(sum.extras, open.header.extras);
    if (open.header.empty) continue;
    sum.weight += open.header.weight;
    contributions.push_back({open.request.payload(), open.header.codec, open.header.lists});
  }
  sum.empty = contributions.empty();
  if (sum.empty) return sum;
  const bool as_it_is = contributions.size() == 1 && contributions[0].codec.empty();
  if (as_it_is && !keep) {
    sum.payload = contributions[0].payload;
    sum.lists = contributions[0].lists;
    return sum;
  }
  sum.payload = storage_->sum(contributions, [&](std::size_t bytes) {
    sum.memory = context_.buffers().get(bytes);
    return sum.memory.bytes();
  });
  return sum;
}

// What a change consists of: at the backup from the message under way.
RangeHost::Change RangeHost::change_of(const Effect& effect) {
  Change change;
  change.op = effect.op;
  if (cause_.header != nullptr) {
    change.payload = cause_.payload;
    change.empty = cause_.header->empty;
    change.scalars = {cause_.header->learning_rate, cause_.header->gradient_scale};
    change.committed_scale = cause_.header->committed_scale;
    return change;
  }
  const bool keep = replica_.range().backup != kNobody;
  if (effect.op.kind == Op::Kind::kInit) {
    const Open& open = open_.at(effect.ticket);
    change.empty = false;
    change.payload = open.header.file.empty() ? open.request.payload() : Bytes(open.loaded);
    change.memory = context_.buffers().get(change.payload.size());
    std::copy(change.payload.begin(), change.payload.end(), change.memory.bytes().begin());
    change.payload = change.memory.bytes();
    return change;
  }
  if (effect.op.kind != Op::Kind::kUpdate) return change;
  Sum sum;
  if (layout_.two_phases) {
    sum = std::move(sum_);
    sum_ = {};
  } else {
    if (layout_.consistency.sums) count_wait(effect.tickets);
    sum = sum_of(effect.tickets, keep);
  }
  change.memory = std::move(sum.memory);
  change.payload = sum.payload;
  change.lists = sum.lists;
  change.empty = sum.empty;
  if (effect.ticket != kNoTicket) {
    const RangeRequest& header = open_.at(effect.ticket).header;
    change.empty = sum.empty || header.skip;
    if (layout_.two_phases) change.committed_scale = header.skip ? 0 : header.gradient_scale;
    change.scalars = {header.learning_rate,
                      header.gradient_scale / (sum.weight > 0 ? sum.weight : 1)};
  }
  last_extras_ = std::move(sum.extras);
  const std::lock_guard lock(report_mutex_);
  ++report_.updates;
  if (!layout_.consistency.sums && effect.staleness >= 0) {
    const auto late = std::min(static_cast<std::size_t>(effect.staleness), kMostStaleness);
    report_.staleness.resize(std::max(report_.staleness.size(), late + 1));
    ++report_.staleness[late];
  }
  return change;
}

void RangeHost::apply(const Change& change) {
  if (change.op.kind == Op::Kind::kInit) return storage_->init(change.payload);
  if (change.op.kind == Op::Kind::kUpdate) committed_scale_ = change.committed_scale;
  if (change.op.kind == Op::Kind::kUpdate && !change.empty) {
    storage_->apply({change.payload, {}, change.lists}, change.scalars);
    const std::lock_guard lock(report_mutex_);
    report_.rows = replica_.is_primary() ? storage_->rows() : 0;
    report_.memory_bytes = storage_->memory_bytes();
  }
}

void RangeHost::read(Ticket ticket) {
  Open& open = open_.at(ticket);
  for (const Member& member : replica_.state().members) {
    if (member.worker == open.header.asker.worker) open.clock = member.clock;
  }
  if (open.method == Method::kEnter) return;
  if (open.method == Method::kSnapshot) return write_snapshot(open);
  Contribution request;
  if (open.method != Method::kCommit) {
    request = {open.request.payload(), {}, open.header.lists};
  }
  open.read_bytes = storage_->read_bytes(request);
  storage_->read(request, open.request.reply_space(open.read_bytes));
}

void RangeHost::write_snapshot(Open& open) {
  std::vector<std::byte> state;
  storage_->export_state([&](Bytes part) { state.insert(state.end(), part.begin(), part.end()); });
  try {
    if (!open.header.file.empty()) {
      open.text = write_state_file(open.header.file, state);
      return;
    }
    const std::span<std::byte> out = open.request.reply_space(state.size());
    std::copy(state.begin(), state.end(), out.begin());
    open.read_bytes = state.size();
  } catch (const Error& error) {
    open.text = error.what();
    open.failed = true;
  }
}

void RangeHost::answer(const Effect& effect) {
  const auto found = open_.find(effect.ticket);
  if (found == open_.end()) return;  // two phases: a push that was answered kSummed
  Open& open = found->second;
  RangeReply reply{.term = replica_.term(),
                   .clock = open.clock,
                   .extras = {},
                   .block_sums = {},
                   .text = open.text};
  if (effect.answer == Answer::kSummed) {
    reply.weight = sum_.weight;
    reply.extras = sum_.extras;
    reply.block_sums = sum_.block_sums;
  } else if (effect.answer == Answer::kDone) {
    reply.extras = last_extras_;
    reply.committed_scale = committed_scale_;
  }
  const bool done = effect.answer == Answer::kDone && !open.failed;
  const auto status = open.failed ? kStatusRefused : static_cast<std::uint32_t>(effect.answer);
  open.request.reply(status, encode(reply), done ? open.read_bytes : 0);
  open_.erase(found);
}

// For how long the last push of a step was waited for by the others.
void RangeHost::count_wait(const std::vector<Ticket>& tickets) {
  if (tickets.size() < 2) return;
  const Open* last = nullptr;
  double before_us = 0;
  for (const Ticket ticket : tickets) {
    const Open& open = open_.at(ticket);
    if (last == nullptr || open.arrived_us > last->arrived_us) {
      if (last != nullptr) before_us = std::max(before_us, last->arrived_us);
      last = &open;
    } else {
      before_us = std::max(before_us, open.arrived_us);
    }
  }
  for (const Member& member : replica_.state().members) {
    if (member.worker != last->header.asker.worker) continue;
    const auto rank = static_cast<std::size_t>(member.rank);
    const std::lock_guard lock(report_mutex_);
    report_.waited_for_us.resize(std::max(report_.waited_for_us.size(), rank + 1));
    report_.waited_for_us[rank] += last->arrived_us - before_us;
  }
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
