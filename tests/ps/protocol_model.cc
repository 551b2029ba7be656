// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/ps/protocol_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "tests/ps/protocol_names.h"
#include "tests/ps/protocol_probe.h"

namespace trireme::ps {
namespace {

using Request = Message::Request;
using Kind = Message::Kind;

}  // namespace

System::System(const ModelOptions& options)
    : options_(options),
      membership_(Membership({.servers = options.servers, .workers = options.workers})) {
  membership_.change().declare({1});
  for (int i = 0; i < options.servers; ++i) add_server(i);
  for (int i = 0; i < options.workers; ++i, ++next_id_) {
    membership_.change().worker_up({.id = next_id_, .rank = i});
    workers_[next_id_].rank = i;
    workers_[next_id_].wants = i == 0 ? Request::kInit : Request::kPull;
  }
  publish();
}

void System::add_server(int index) {
  const ServerId id = next_id_++;
  membership_.change().server_up({id, index, "", 0});
  servers_.emplace(id, ModelServer(id, {options_.consistency, options_.two_phases}));
}

void System::publish() {
  if (options_.batches && !views_.empty()) return;
  if (membership_.change().publish()) take_view();
}

void System::take_view() {
  if (!views_.empty()) check_redundancy(*views_.back(), membership_->view());
  views_.emplace_back(membership_->view());
}

const View* System::view_of(Term term) const {
  for (const auto& view : views_) {
    if (view->term == term) return &*view;
  }
  return nullptr;
}

// What a worker wants, to whom it believes to be primary. It stays in the network.
void System::ask(WorkerId id) {
  const ModelWorker& worker = workers_.at(id);
  const View* const view = view_of(worker.term);
  if (view == nullptr || worker.done || !worker.runs) return;
  send({.kind = Kind::kRequest,
        .to = view->ranges[0].primary,
        .term = worker.term,
        .request = worker.wants,
        .worker = id,
        .clock = worker.clock});
}

void System::send(Message message) {
  if (useless(message)) return;
  const auto place = std::lower_bound(
      network_.begin(), network_.end(), message,
      [](const Shared<Message>& left, const Message& right) { return *left < right; });
  if (place != network_.end() && **place == message) return;
  network_.emplace(place, std::move(message));
}

// Messages whose delivery can change nothing are not kept: fewer states.
bool System::useless(const Message& message) const {
  if (message.kind == Kind::kReport)
    return !options_.late_messages && message.term < membership_->view().term;
  if (message.kind == Kind::kAnswer) {
    const ModelWorker& worker = workers_.at(message.worker);
    return !worker.runs || worker.done || message.request != worker.wants ||
           message.clock != worker.clock ||
           (message.answer != Answer::kDone && message.term != worker.term) ||
           (message.answer == Answer::kRetry && worker.wants != Request::kCommit);
  }
  const auto found = servers_.find(message.to);
  if (found == servers_.end() || !found->second->runs ||
      (message.term < found->second->replica.term() &&
       !(message.kind == Kind::kRequest ? options_.late_requests : options_.late_messages))) {
    return true;
  }
  if (message.kind != Kind::kRequest) return !options_.late_messages && acknowledged(message);
  const ModelWorker& worker = workers_.at(message.worker);
  return message.clock + options_.late_steps < worker.clock;
}

// A message between replicas whose acknowledgment is there, or on its way.
bool System::acknowledged(const Message& m) const {
  const std::int64_t position = m.kind == Kind::kState ? m.state.applied : m.position;
  const ServerId follower = m.kind == Kind::kAcknowledge ? m.from : m.to;
  const auto knows = [&](ServerId primary) {
    const auto found = servers_.find(primary);
    return found != servers_.end() &&
           ProtocolProbe::knows(found->second->replica, follower, m.term, position);
  };
  if (m.kind == Kind::kAcknowledge) return knows(m.to);
  const RangeReplica& replica = servers_.at(follower)->replica;
  if (replica.term() != m.term) return false;
  if (knows(replica.range().primary)) return true;
  return std::any_of(network_.begin(), network_.end(), [&](const auto& other) {
    return other->kind == Kind::kAcknowledge && other->from == follower && other->term == m.term &&
           other->position >= position;
  });
}

void System::forget_useless() {
  std::vector<Shared<Message>> kept;
  kept.reserve(network_.size());
  for (const auto& message : network_) {
    if (!useless(*message)) kept.push_back(message);
  }
  network_ = std::move(kept);
}

void System::deliver(const Message& message) {
  switch (message.kind) {
    case Kind::kRequest:
      return deliver_request(message);
    case Kind::kAnswer:
      return deliver_answer(message);
    case Kind::kReport:
      membership_.change().ready(message.term, 0);
      return publish();
    default:
      break;
  }
  RangeReplica& replica = servers_.at(message.to).change().replica;
  if (message.kind == Kind::kReplicate) {
    replica.replicate(message.term, message.position, message.op);
  } else if (message.kind == Kind::kState) {
    replica.take_state(message.term, message.state);
  } else {
    replica.acknowledge(message.from, message.term, message.position);
  }
  perform(message.to, &message);
}

void System::deliver_request(const Message& m) {
  RangeReplica& replica = servers_.at(m.to).change().replica;
  const Ticket ticket = ticket_of(m.request, m.worker, m.clock, m.term);
  if (!servers_.at(m.to).change().open.insert(ticket).second) return;
  const Asker asker{m.worker, m.clock};
  switch (m.request) {
    case Request::kInit:
      replica.init(ticket, m.term);
      break;
    case Request::kPull:
      replica.pull(ticket, asker, m.term);
      break;
    case Request::kPush:
      replica.push(ticket, asker, options_.push_pull, m.term);
      break;
    case Request::kCommit:
      replica.commit(ticket, asker, options_.push_pull, m.term);
      break;
    default:
      replica.enter(ticket, m.worker, m.term);
      break;
  }
  perform(m.to, &m);
}

void System::deliver_answer(const Message& m) {
  ModelWorker& worker = workers_.at(m.worker);
  if (useless(m)) return;
  if (m.answer == Answer::kNotMember) {
    // It was dropped, and lives: it ends as if it had died.
    worker.runs = false;
    return;
  }
  if (m.answer == Answer::kOutOfOrder) {
    fault_ = fmt::format("worker {} was told that its step {} is out of order", m.worker, m.clock);
    return;
  }
  if (m.answer == Answer::kSummed) {
    worker.wants = Request::kCommit;
    return ask(m.worker);
  }
  if (m.answer == Answer::kRetry) {
    if (worker.wants == Request::kCommit) worker.wants = Request::kPush;
    return ask(m.worker);
  }
  if (!m.values.empty() || m.request == Request::kPull || m.request == Request::kEnter) {
    worker.seen = m.values;
  }
  if (m.request == Request::kEnter) {
    worker.clock = m.position;
    worker.wants = Request::kPull;
  } else if (m.request == Request::kInit) {
    worker.wants = Request::kPull;
  } else if (m.request == Request::kPull) {
    worker.wants = Request::kPush;
  } else {
    acknowledged_.change().insert({m.worker, m.clock});
    ++worker.clock;
    worker.wants = options_.push_pull ? Request::kPush : Request::kPull;
  }
  worker.done = worker.clock >= options_.steps;
  ask(m.worker);
}

void System::enter_view(ServerId id, const View& view) {
  servers_.at(id).change().replica.enter_view(view.term, view.ranges[0], view.workers);
  perform(id, nullptr);
}

void System::perform(ServerId id, const Message* cause) {
  for (const Effect& effect : servers_.at(id).change().replica.take_effects())
    perform_one(id, effect, cause);
}

void System::perform_one(ServerId id, const Effect& effect, const Message* cause) {
  ModelServer& server = servers_.at(id).change();
  const RangeView& range = server.replica.range();
  Message message{.kind = Kind::kReplicate, .to = effect.to, .term = server.replica.term()};
  switch (effect.kind) {
    case Effect::Kind::kApply:
      check_update(server, effect);
      server.texts[effect.position] = cause != nullptr && cause->kind == Kind::kReplicate
                                          ? cause->values
                                          : update_text(effect.op, server.replica.term());
      server.values += server.texts[effect.position];
      return;
    case Effect::Kind::kRead:
      check_read(server, effect.ticket);
      server.reads[effect.ticket] = server.values;
      for (const Member& member : server.replica.state().members) {
        if (member.worker == worker_of(effect.ticket)) server.entered[effect.ticket] = member.clock;
      }
      return;
    case Effect::Kind::kAnswer:
      message.kind = Kind::kAnswer;
      message.worker = message.to = worker_of(effect.ticket);
      message.term = term_of(effect.ticket);
      message.request = request_of(effect.ticket);
      message.clock = clock_of(effect.ticket);
      message.answer = effect.answer;
      if (effect.answer == Answer::kDone) {
        message.values = server.reads[effect.ticket];
        if (message.request == Request::kEnter) message.position = server.entered[effect.ticket];
      }
      if (server.open.erase(effect.ticket) == 0 &&
          !(options_.two_phases && message.request == Request::kPush)) {
        fault_ = "a request is answered twice";
      }
      server.reads.erase(effect.ticket);
      server.entered.erase(effect.ticket);
      return send(message);
    case Effect::Kind::kReplicate:
      message.position = effect.position;
      message.op = effect.op;
      message.values = server.texts.at(effect.position);
      return send(message);
    case Effect::Kind::kSendState:
      message.kind = Kind::kState;
      message.state = server.replica.state();
      message.values = server.values;
      return send(message);
    case Effect::Kind::kTakeState:
      server.values = cause->values;
      return;
    case Effect::Kind::kAcknowledge:
      message.kind = Kind::kAcknowledge;
      message.to = range.primary;
      message.from = id;
      message.position = effect.position;
      return send(message);
    case Effect::Kind::kReport:
      message.kind = Kind::kReport;
      message.to = 0;
      return send(message);
    case Effect::Kind::kDiscard:
      server.values.clear();
      server.texts.clear();
      return;
    case Effect::Kind::kForget:
      server.texts.erase(server.texts.begin(), server.texts.upper_bound(effect.position));
      return;
    case Effect::Kind::kSum:
      return;
  }
}

// What the coordinator may do for balance.
void System::add_decisions(const Add& add) const {
  if (!ProtocolProbe::settled(*membership_)) return;
  const View& view = membership_->view();
  const RangeView& range = view.ranges[0];
  for (const ServerView& server : view.servers) {
    if (options_.moves == 0 || server.id == range.primary || server.id == range.backup) continue;
    add(fmt::format("server {} is to become backup", server.id), [&](System& next) {
      --next.options_.moves;
      ProtocolProbe::move_backup(next.membership_.change(), server.id);
      next.take_view();
    });
  }
  if (options_.handovers == 0) return;
  add("primary and backup are to change places", [](System& next) {
    --next.options_.handovers;
    ProtocolProbe::hand_over(next.membership_.change());
    next.take_view();
  });
}

std::vector<System::Move> System::moves(bool with_words) const {
  std::vector<Move> moves;
  if (failed() || done() || !fault_.empty()) return moves;
  const Add add = [&](const std::string& what, const std::function<void(System&)>& act) {
    Move move{with_words ? what : std::string(), *this};
    act(move.next);
    move.next.forget_useless();
    move.next.check_holders();
    move.next.check_followers();
    moves.push_back(std::move(move));
  };
  for (const Shared<Message>& held : network_) {
    const Message& message = *held;
    add(with_words ? fmt::format("message kind {} request {} to {} term {} worker {} clock {} "
                                 "answer {} position {}",
                                 static_cast<int>(message.kind), static_cast<int>(message.request),
                                 message.to, message.term, message.worker, message.clock,
                                 static_cast<int>(message.answer), message.position)
                   : "",
        [&](System& next) { next.deliver(message); });
  }
  add_decisions(add);
  if (options_.batches && ProtocolProbe::changed(*membership_)) {
    add("the coordinator makes a view", [](System& next) {
      if (next.membership_.change().publish()) next.take_view();
    });
  }
  for (const auto& [id, server] : servers_) {
    if (!server->runs) continue;
    for (const auto& held : views_) {
      const View& view = *held;
      if (view.term <= server->replica.term()) continue;
      add(fmt::format("server {} enters view {}", id, view.term),
          [&, id = id](System& next) { next.enter_view(id, view); });
    }
    if (options_.server_crashes > 0) {
      add(fmt::format("server {} dies", id), [id = id](System& next) {
        --next.options_.server_crashes;
        next.servers_.at(id).change().runs = false;
        next.undetected_servers_.insert(id);
      });
    }
    if (options_.suspicions > 0 && !undetected_servers_.contains(id)) {
      add(fmt::format("server {} is taken for dead", id), [id = id](System& next) {
        --next.options_.suspicions;
        next.membership_.change().server_down(id);
        next.publish();
      });
    }
  }
  for (const ServerId id : undetected_servers_) {
    add(fmt::format("the coordinator sees that server {} is gone", id), [id](System& next) {
      next.undetected_servers_.erase(id);
      next.membership_.change().server_down(id);
      next.publish();
      if (next.options_.server_returns == 0) return;
      --next.options_.server_returns;
      next.add_server(static_cast<int>(id) - 1);
      next.publish();
    });
  }
  for (const auto& [id, worker] : workers_) {
    if (!worker.runs || worker.done) continue;
    for (const auto& held : views_) {
      const View& view = *held;
      if (view.term <= worker.term) continue;
      add(fmt::format("worker {} enters view {}", id, view.term), [&, id = id](System& next) {
        next.workers_.at(id).term = view.term;
        if (next.workers_.at(id).wants == Request::kCommit) {
          next.workers_.at(id).wants = Request::kPush;
        }
        next.ask(id);
      });
    }
    // One must be left, and the one who brings the first values lives until it has.
    if (options_.worker_crashes > 0 && worker.wants != Request::kInit &&
        id != servers_.begin()->first) {
      add(fmt::format("worker {} dies", id), [id = id](System& next) {
        --next.options_.worker_crashes;
        next.workers_.at(id).runs = false;
        next.undetected_workers_.insert(id);
      });
    }
  }
  for (const WorkerId id : undetected_workers_) {
    add(fmt::format("the coordinator sees that worker {} is gone", id), [id](System& next) {
      next.undetected_workers_.erase(id);
      next.membership_.change().worker_down(id);
      next.publish();
      if (next.options_.worker_returns == 0) return;
      --next.options_.worker_returns;
      const WorkerId life = next.next_id_++;
      next.workers_[life].rank = next.workers_.at(id).rank;
      next.workers_[life].wants = Request::kEnter;
      next.membership_.change().worker_up({.id = life, .rank = next.workers_[life].rank});
      next.publish();
    });
  }
  return moves;
}

bool System::done() const {
  const View& view = membership_->view();
  if (view.servers.size() >= 2 && !ProtocolProbe::settled(*membership_)) return false;
  return std::all_of(workers_.begin(), workers_.end(),
                     [](const auto& worker) { return !worker.second.runs || worker.second.done; });
}

std::string System::text() const {
  std::string text;
  for (const auto& [id, server] : servers_) {
    text +=
        fmt::format("server {} {} term {} applied {} committed {} values '{}'\n", id,
                    server->runs ? "runs" : "gone", server->replica.term(),
                    server->replica.state().applied, server->replica.committed(), server->values);
  }
  for (const auto& [id, worker] : workers_) {
    text += fmt::format("worker {} {} term {} wants {} step {} seen '{}'\n", id,
                        worker.runs ? "runs" : "gone", worker.term, static_cast<int>(worker.wants),
                        worker.clock, worker.seen);
  }
  for (const auto& held : views_) {
    const View& view = *held;
    const RangeView& range = view.ranges[0];
    text += fmt::format(
        "view {}: primary {} backup {} since {} ready {} successor {} since {}{} {}\n", view.term,
        range.primary, range.backup, range.backup_since, range.backup_ready, range.successor,
        range.successor_since, range.handover ? " handover" : "", view.failure);
  }
  return text;
}

}  // namespace trireme::ps
