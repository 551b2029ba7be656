// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What the launchers of a job of several hosts tell one another when it has parameter servers: a
// server is needed until the last worker of the last host has ended. A star with node 0's launcher
// in its middle, over the connections by which they met.
//
//   other  -> node 0   ended      all workers of this host have: did one end well, the first
//   failure any    -> all      fatal      the job ends now, with this status any    -> all
//   interrupt  the job was asked to end, by this signal node 0 -> others   over       all workers
//   of all hosts have ended; the job's status
//
// The launchers meet where the ranks will (comm/meeting/rendezvous.h), with the job's secret,
// before any process of the job is started: it needs no port of its own.
#pragma once

#include <poll.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/comm/meeting/rendezvous.h"

namespace trireme::detail {

// How the workers of a host, or of all, have done.
struct WorkersOutcome {
  bool one_succeeded = false;
  // The job's exit status that the first failure stands for; 0: there was none.
  int first_failure = 0;
  int failure_when_ending = 0;  // the first of a worker that had been asked to end

  void add(const WorkersOutcome& other);
  // Who dies is done without as long as another one ends well.
  int status() const;
};

struct LauncherEvent {
  enum class Kind { kFatal, kInterrupt, kOver };
  Kind kind;
  int value;        // a status, or a signal
  std::string who;  // "the launcher of node 1 (host1)"
};

// Never blocks after it was made. For a process of one thread.
class LauncherLink {
 public:
  // Blocks until the launchers of all nodes have met. fingerprint: what all of them must agree on.
  // listener: node 0's, of the rendezvous, which stays the caller's. Throws as join_world() does.
  LauncherLink(const WorldOptions& options, const FileDescriptor& listener);
  // Gives what was said last a second to leave.
  ~LauncherLink();
  LauncherLink(const LauncherLink&) = delete;
  LauncherLink& operator=(const LauncherLink&) = delete;

  void append_waits(std::vector<pollfd>& waits) const;
  // What the others have said since the last call. Node 0 passes on what is for all. The loss of
  // node 0 is fatal, that of another one is as if its workers had failed; both are logged.
  std::vector<LauncherEvent> move();

  // This host's workers have all ended. Once.
  void workers_ended(const WorkersOutcome& outcome);
  void fatal(int status);
  void interrupt(int signal);

 private:
  struct Peer {
    Connection connection;
    std::string name;
    bool workers_ended = false;
  };

  void handle(int from, const Frame& frame, std::vector<LauncherEvent>& events);
  void lose(int node, std::vector<LauncherEvent>& events);
  void check_over(std::vector<LauncherEvent>& events);
  void send_to_all_but(int node, std::string_view what, int value);

  const int node_;             // constant after construction
  std::map<int, Peer> peers_;  // node 0: all others; others: node 0
  WorkersOutcome outcome_;     // node 0: of those that have ended
  bool own_ended_ = false;
  bool over_ = false;  // all has been said: who goes now is not missed
};

}  // namespace trireme::detail
