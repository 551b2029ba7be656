// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Watches the processes of a job from their start to the last one's end. It is one thread that
// sleeps in poll: everything that can happen reaches it as a signal (SIGCHLD: a process ended;
// SIGINT, SIGTERM, SIGHUP: we are asked to end; SIGPIPE: nobody reads what we print; SIGTSTP: the
// user pressed Ctrl-Z), as a deadline, as output of a process where lines get a prefix, or as a
// word of another launcher. The workers move through the stages below and never back.
//
//   running     --something ends the job-->   ending, for at most grace
//   running     --SIGINT, SIGTERM, SIGHUP-->  ending, for at most interrupt_grace
//   running     --a user's mistake (servers)--> terminated, for at most grace
//   ending      --deadline-->                 terminated: SIGTERM sent, terminate_grace left
//   terminated  --deadline-->                 killed: SIGKILL sent, the kernel ends them
//   any         --SIGINT when asked before--> killed
//
// What ends the job stands in the table of its processes (job_process.h): without servers the death
// of any worker, with servers that of the coordinator. Workers in "ending" after a death are left
// alone at first: their own connections tell them who is missing, so that they can say it before
// they go. When the last worker of the job has ended, the servers and the coordinator are
// terminated.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/launch/job_process.h"
#include "trireme/launch/launcher_link.h"
#include "trireme/launch/local_workers.h"
#include "trireme/launch/process_fleet.h"
#include "trireme/launch/signal_inbox.h"

namespace trireme::detail {

// For a process of one thread. All that it is given must outlive it.
class JobSupervisor {
 public:
  // link: to the other launchers of a job with servers on several hosts, else none.
  JobSupervisor(const LocalWorkersOptions& options, Fleet& fleet, LauncherLink* link)
      : options_(options), fleet_(fleet), link_(link) {}

  // Blocks until all processes of the fleet have ended and their lines are written. Returns the
  // exit status of the job.
  int run(const SignalInbox& inbox);

 private:
  enum class Stage { kRunning, kEnding, kTerminated, kKilled };

  void wait_for_event(const SignalInbox& inbox);
  void reap_ended();
  void note_failures(std::vector<Fleet::Ended> failures);
  void note_failure(const Fleet::Ended& failure);
  void note_worker_failure(int status, const std::string& name);
  bool serving_is_needed() const;
  bool may_start_again(const JobProcess& process) const;
  bool start_again(const JobProcess& process);
  void end_job(int status);
  void note_workers_over();
  void end_serving();
  int own_status() const;

  void on_signal(int signal);
  void on_interrupt(int signal);
  void on_launcher(const LauncherEvent& event);
  void on_deadline();
  void pass_on(int signal);
  void kill_all();
  void suspend();
  void enter(Stage stage, std::chrono::milliseconds time);

  // Constant after construction.
  const LocalWorkersOptions& options_;
  Fleet& fleet_;
  LauncherLink* const link_;

  JobPart part_ = JobPart::kWorkers;  // that the stage is of
  Stage stage_ = Stage::kRunning;
  std::optional<Deadline> deadline_;  // of the stage
  bool asked_ = false;                // to end, by a signal to any launcher
  bool interrupted_ = false;          // by a signal to this one: a SIGINT more kills
  WorkersOutcome workers_;            // of this host
  bool reported_ = false;             // that they have ended, to the link
  std::optional<int> job_status_;     // once something has decided it
  std::map<const JobProcess*, int> restarts_;
  std::vector<std::string> left_out_;  // names of workers that died for good
};

}  // namespace trireme::detail
