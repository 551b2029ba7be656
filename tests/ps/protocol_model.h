// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A whole parameter server of one range as one value: coordinator, servers, workers, and a network
// that may deliver each message at any time, in any order, any number of times or never. From a
// state moves() are all that can happen next; nothing else can.
//
// Values are lists of the contributions that were applied, so that what is lost, applied twice or
// in another order is seen.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/ps/shared.h"
#include "trireme/ps/protocol/membership.h"
#include "trireme/ps/protocol/range_replica.h"

namespace trireme::ps {

struct ModelOptions {
  int servers = 2;
  int workers = 2;
  std::int64_t steps = 2;
  Consistency consistency = Consistency::sync();
  bool two_phases = false;
  bool push_pull = false;  // a push is answered as the next step's pull
  // Steps for which a request may still arrive after its worker has gone on.
  std::int64_t late_steps = 0;
  // Requests may still arrive when their receiver has left their term.
  bool late_requests = false;
  // Messages between servers, and to the coordinator, may still arrive when their receiver has
  // acknowledged them, or has left their term.
  bool late_messages = false;
  // What the coordinator hears becomes a view later, together with what it hears until then.
  bool batches = false;
  // How often each may happen.
  int server_crashes = 0;
  int suspicions = 0;  // a server that lives is taken for dead
  int worker_crashes = 0;
  int server_returns = 0;
  int worker_returns = 0;
  int moves = 0;      // another server is to become backup in place of a ready one
  int handovers = 0;  // primary and ready backup are to change places
};

// What a message is about. One struct for all kinds: a set of them is the network.
struct Message {
  enum class Kind : std::uint8_t { kRequest, kAnswer, kReplicate, kState, kAcknowledge, kReport };
  enum class Request : std::uint8_t { kNone, kInit, kPull, kPush, kCommit, kEnter };
  Kind kind = Kind::kRequest;
  std::int64_t to = 0;      // server or worker
  ServerId from = kNobody;  // kAcknowledge
  Term term = 0;
  Request request = Request::kNone;
  WorkerId worker = kNobody;
  std::int64_t clock = 0;
  Answer answer = Answer::kDone;
  std::int64_t position = 0;
  Op op = {};
  ReplicaState state = {};
  std::string values = {};

  auto operator<=>(const Message&) const = default;
};

struct ModelServer {
  explicit ModelServer(ServerId id, const ReplicaOptions& options) : replica(id, options) {}
  RangeReplica replica;
  bool runs = true;
  std::string values;
  std::map<std::int64_t, std::string> texts;  // of the changes that it may send again
  std::map<Ticket, std::string> reads;        // what a ticket has read, and its member's clock
  std::map<Ticket, std::int64_t> entered;
  std::set<Ticket> open;  // not answered: a worker repeats only what it takes for lost
  auto operator<=>(const ModelServer&) const = default;
};

struct ModelWorker {
  int rank = 0;
  bool runs = true;
  Term term = 0;
  Message::Request wants = Message::Request::kPull;
  std::int64_t clock = 0;
  bool done = false;
  std::string seen;  // the last values that it read
  auto operator<=>(const ModelWorker&) const = default;
};

class System {
 public:
  explicit System(const ModelOptions& options);

  // All states that may follow, and what happened on the way.
  struct Move;
  std::vector<Move> moves(bool with_words) const;

  // The job has ended well: all workers that run are done, and the range is on two servers again
  // where there are two.
  bool done() const;
  // Or cannot go on, which the coordinator knows.
  bool failed() const { return !membership_->view().failure.empty(); }
  // What is wrong with this state; empty: nothing.
  const std::string& fault() const { return fault_; }
  // Equal for equal states.
  Hash fingerprint() const;
  std::string text() const;

 private:
  using Add = std::function<void(const std::string& what, const std::function<void(System&)>& act)>;

  void deliver(const Message& message);
  void deliver_request(const Message& message);
  void deliver_answer(const Message& message);
  void enter_view(ServerId id, const View& view);
  void perform(ServerId id, const Message* cause);
  void perform_one(ServerId id, const Effect& effect, const Message* cause);
  void check_update(const ModelServer& server, const Effect& effect);
  void check_read(const ModelServer& server, Ticket ticket);
  void add_server(int index);
  void check_holders();
  void check_followers();
  void check_redundancy(const View& before, const View& after);
  void add_decisions(const Add& add) const;
  void publish();
  void take_view();
  void ask(WorkerId id);
  void send(Message message);
  void forget_useless();
  bool useless(const Message& message) const;
  bool acknowledged(const Message& message) const;
  const View* view_of(Term term) const;

  ModelOptions options_;
  Shared<Membership> membership_;
  std::vector<Shared<View>> views_;
  std::map<ServerId, Shared<ModelServer>> servers_;
  std::map<WorkerId, ModelWorker> workers_;
  std::vector<Shared<Message>> network_;   // ascending
  std::set<ServerId> undetected_servers_;  // gone, which the coordinator does not know yet
  std::set<WorkerId> undetected_workers_;
  Shared<std::set<std::pair<WorkerId, std::int64_t>>>
      acknowledged_;  // steps whose push was answered
  std::int64_t next_id_ = 1;
  std::string fault_;
};

struct System::Move {
  std::string what;
  System next;
};

}  // namespace trireme::ps
