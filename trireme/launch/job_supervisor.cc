// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/launch/job_supervisor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <signal.h>
#include <string.h>

#include <algorithm>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/comm/meeting/socket.h"

namespace trireme::detail {
namespace {

constexpr int kUserMistake = 2;

int status_of(const WorkerEnd& end) { return end.status == kUserMistake ? kUserMistake : 1; }

}  // namespace

int JobSupervisor::run(const SignalInbox& inbox) {
  for (reap_ended(); part_ == JobPart::kWorkers || !fleet_.empty(); reap_ended()) {
    wait_for_event(inbox);
  }
  // Whoever reads our output may be slow. One Ctrl-C more does not wait for it, nor does one that
  // has killed the processes.
  if (stage_ != Stage::kKilled) interrupted_ = false;
  deadline_.reset();
  for (fleet_.lines().end(); fleet_.lines().pending() && !interrupted_;) wait_for_event(inbox);
  return job_status_.value_or(own_status());
}

void JobSupervisor::wait_for_event(const SignalInbox& inbox) {
  std::vector<pollfd> ready{{inbox.fd(), POLLIN, 0}};
  fleet_.lines().append_waits(ready);
  if (link_ != nullptr) link_->append_waits(ready);
  poll(ready.data(), ready.size(),
       deadline_ ? static_cast<int>(deadline_->remaining().count()) : -1);
  fleet_.lines().move();
  if (link_ != nullptr) {
    for (const LauncherEvent& event : link_->move()) on_launcher(event);
  }
  while (const int signal = inbox.receive()) on_signal(signal);
  if (deadline_ && deadline_->expired()) on_deadline();
}

void JobSupervisor::reap_ended() {
  std::vector<Fleet::Ended> failures;
  for (const Fleet::Ended& ended : fleet_.reap()) {
    const bool worker = ended.process->role == JobRole::kWorker;
    if (ended.how.failed()) {
      failures.push_back(ended);
    } else if (worker) {
      workers_.one_succeeded = true;
    } else if (part_ == JobPart::kWorkers) {
      log_warn("{}, before the workers", ended.description());
    }
  }
  if (!failures.empty()) note_failures(std::move(failures));
  if (part_ == JobPart::kWorkers && !fleet_.has(JobPart::kWorkers)) note_workers_over();
}

// Several that failed since the last look are put in the order of cause: a user's mistake, then a
// signal, then the errors of those who lost a peer. Workers come first: whether one starts again
// decides whether a server is still needed.
void JobSupervisor::note_failures(std::vector<Fleet::Ended> failures) {
  const auto order = [](const Fleet::Ended& failure) {
    const WorkerEnd& how = failure.how;
    return std::pair(part_of(failure.process->role),
                     how.status == kUserMistake ? 0 : (how.signal != 0 ? 1 : 2));
  };
  std::ranges::stable_sort(failures, {}, order);
  const bool by_us = stage_ == Stage::kTerminated || stage_ == Stage::kKilled;
  for (const Fleet::Ended& failure : failures) {
    const bool as_told = part_ == JobPart::kServing && failure.how.signal == SIGTERM;
    log_line(as_told ? LogLevel::kDebug
             : by_us ? LogLevel::kWarn
                     : LogLevel::kError,
             failure.description());
  }
  for (const Fleet::Ended& failure : failures) note_failure(failure);
}

void JobSupervisor::note_failure(const Fleet::Ended& failure) {
  const JobProcess& process = *failure.process;
  const int status = status_of(failure.how);
  const bool ends_job = process.death_ends_job || status == kUserMistake;
  if (!ends_job && may_start_again(process) && start_again(process)) return;
  if (process.role == JobRole::kWorker) {
    note_worker_failure(status, process.name);
  } else if (!serving_is_needed()) {
    return;
  }
  if (!ends_job || stage_ != Stage::kRunning || part_ != JobPart::kWorkers) return;
  if (link_ != nullptr) link_->fatal(status);
  end_job(status);
}

void JobSupervisor::note_worker_failure(int status, const std::string& name) {
  if (workers_.first_failure == 0) workers_.first_failure = status;
  if (stage_ == Stage::kRunning) {
    left_out_.push_back(name);
  } else if (workers_.failure_when_ending == 0) {
    workers_.failure_when_ending = status;
  }
}

// As long as there is a worker, here or elsewhere.
bool JobSupervisor::serving_is_needed() const {
  return fleet_.has(JobPart::kWorkers) || (link_ != nullptr && !job_status_);
}

bool JobSupervisor::may_start_again(const JobProcess& process) const {
  const auto before = restarts_.find(&process);
  const int times = before == restarts_.end() ? 0 : before->second;
  return stage_ == Stage::kRunning && times < process.restarts &&
         (process.role == JobRole::kWorker || serving_is_needed());
}

bool JobSupervisor::start_again(const JobProcess& process) {
  const int times = ++restarts_[&process];
  try {
    FileDescriptor listener;
    if (process.listens) listener = listen_on(process.listens->address, process.listens->port);
    fleet_.start(process, std::move(listener), times);
  } catch (const Error& error) {
    log_error("{} cannot be started again: {}", process.name, error.what());
    return false;
  }
  log_warn("{} has been started again, {} of at most {} times", process.name, times,
           process.restarts);
  return true;
}

// Without servers the workers notice by themselves, and with them they may when the coordinator is
// gone; a mistake of the user is nothing that they could notice.
void JobSupervisor::end_job(int status) {
  if (!job_status_) job_status_ = status;
  if (stage_ != Stage::kRunning || !fleet_.has(JobPart::kWorkers)) return;
  const bool told = options_.parameter_servers && status == kUserMistake;
  if (told) fleet_.send(JobPart::kWorkers, SIGTERM);
  log_info("{} still runs; waiting up to {} ms", fleet_.names(JobPart::kWorkers),
           options_.grace.count());
  enter(told ? Stage::kTerminated : Stage::kEnding, options_.grace);
}

// Of this host. Those of others may still need its servers.
void JobSupervisor::note_workers_over() {
  if (link_ != nullptr && !std::exchange(reported_, true)) {
    link_->workers_ended(workers_);
    for (const LauncherEvent& event : link_->move()) on_launcher(event);
    if (!job_status_) log_info("the workers of this host have ended; those of others still run");
  }
  if (link_ == nullptr && !job_status_) job_status_ = own_status();
  if (job_status_) end_serving();
}

void JobSupervisor::end_serving() {
  part_ = JobPart::kServing;
  deadline_.reset();
  if (!left_out_.empty() && job_status_ == 0) {
    log_warn("the job was finished without {}", fmt::join(left_out_, ", "));
  }
  if (fleet_.empty()) return;
  fleet_.send(SIGTERM);
  enter(Stage::kTerminated, options_.grace);
}

int JobSupervisor::own_status() const {
  return options_.parameter_servers ? workers_.status() : workers_.first_failure;
}

void JobSupervisor::on_signal(int signal) {
  if (signal == SIGTSTP) suspend();
  for (const int request : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) {
    if (signal == request) on_interrupt(signal);
  }
}

void JobSupervisor::on_interrupt(int signal) {
  if (!interrupted_) {
    interrupted_ = true;
    log_info("{}: passed on to the workers; Ctrl-C kills them at once", strsignal(signal));
    if (std::exchange(asked_, true)) return;
    pass_on(signal);
    if (link_ != nullptr) link_->interrupt(signal);
  } else if (signal == SIGINT && stage_ != Stage::kKilled) {
    kill_all();
  }
}

void JobSupervisor::on_launcher(const LauncherEvent& event) {
  switch (event.kind) {
    case LauncherEvent::Kind::kFatal:
      log_error("{} ends the job with status {}", event.who, event.value);
      end_job(event.value);
      break;
    case LauncherEvent::Kind::kInterrupt:
      if (std::exchange(asked_, true)) break;
      log_info("{} at {}: passed on to the workers", strsignal(event.value), event.who);
      pass_on(event.value);
      break;
    case LauncherEvent::Kind::kOver:
      if (!job_status_) job_status_ = event.value;
      break;
  }
}

void JobSupervisor::on_deadline() {
  if (stage_ == Stage::kEnding && fleet_.has(part_)) {
    log_warn("{} did not end in time; terminating", fleet_.names(part_));
    fleet_.send(part_, SIGTERM);
    enter(Stage::kTerminated, options_.terminate_grace);
  } else if (stage_ == Stage::kTerminated && fleet_.has(part_)) {
    log_warn("{} did not end on SIGTERM; killing", fleet_.names(part_));
    fleet_.send(part_, SIGKILL);
    stage_ = Stage::kKilled;
    deadline_.reset();
  } else {
    deadline_.reset();
  }
}

// To a worker a lost terminal, or a lost reader of its lines, is a request to end like another.
// Servers are ended after the workers.
void JobSupervisor::pass_on(int signal) {
  if (part_ == JobPart::kServing) return;
  fleet_.send(JobPart::kWorkers, signal == SIGINT ? SIGINT : SIGTERM);
  if (stage_ == Stage::kRunning) enter(Stage::kEnding, options_.interrupt_grace);
}

void JobSupervisor::kill_all() {
  const std::string workers = fleet_.names(JobPart::kWorkers);
  const std::string serving = fleet_.names(JobPart::kServing);
  log_warn("second interrupt: killing {}{}{}", workers,
           workers.empty() || serving.empty() ? "" : ", ", serving);
  fleet_.send(SIGKILL);
  part_ = JobPart::kServing;
  stage_ = Stage::kKilled;
  deadline_.reset();
}

// Ctrl-Z reaches only the launcher, because the others are in process groups of their own.
void JobSupervisor::suspend() {
  fleet_.send(SIGSTOP);
  raise(SIGSTOP);
  fleet_.send(SIGCONT);
}

void JobSupervisor::enter(Stage stage, std::chrono::milliseconds time) {
  stage_ = stage;
  deadline_ = Deadline::after(time);
}

}  // namespace trireme::detail
