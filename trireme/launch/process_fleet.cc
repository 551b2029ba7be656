// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/launch/process_fleet.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "trireme/base/error.h"

namespace trireme::detail {
namespace {

FileDescriptor open_log(const std::string& folder, const std::string& name, const char* extension) {
  const std::string path = fmt::format("{}/{}.{}", folder, name, extension);
  FileDescriptor fd(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (!fd) throw_error<ConfigError>("cannot write {}: {}", path, strerror(errno));
  return fd;
}

}  // namespace

JobPart part_of(JobRole role) {
  return role == JobRole::kWorker ? JobPart::kWorkers : JobPart::kServing;
}

std::string Fleet::Ended::description() const {
  const std::string who = fmt::format("{} (pid {})", process->name, pid);
  if (how.signal == 0) return fmt::format("{} ended with status {}", who, how.status);
  std::string_view hint;
  if (how.signal == SIGKILL) hint = "; if nobody did that, the machine ran out of memory";
  if (how.signal == SIGBUS) hint = "; /dev/shm or a disk may be full";
  return fmt::format("{} was killed by signal {} ({}){}", who, how.signal, strsignal(how.signal),
                     hint);
}

Fleet::~Fleet() {
  send(SIGKILL);
  for (const Running& running : running_) reap_worker(running.pid);
}

void Fleet::start(const JobProcess& process, FileDescriptor listener, int restart) {
  WorkerStart start;
  start.command = process.command;
  start.as = role_name(process.role);
  start.environment = process.environment;
  start.listen_fd = listener.get();
  if (listener) {
    start.environment.emplace_back("TRIREME_LISTEN_FD", std::to_string(listener.get()));
  }
  if (restart > 0) start.environment.emplace_back("TRIREME_RESTART", std::to_string(restart));
  FileDescriptor out;
  FileDescriptor err;
  if (options_.prefix) {
    out = lines_.add(process.prefix, STDOUT_FILENO);
    err = lines_.add(process.prefix, STDERR_FILENO);
  } else if (!options_.log_folder.empty()) {
    out = open_log(options_.log_folder, process.log_name, "out");
    err = open_log(options_.log_folder, process.log_name, "err");
  }
  start.out_fd = out.get();
  start.err_fd = err.get();
  running_.push_back({&process, start_worker(start)});
}

std::vector<Fleet::Ended> Fleet::reap() {
  std::vector<Ended> ended;
  std::erase_if(running_, [&](const Running& running) {
    const std::optional<WorkerEnd> how = try_reap_worker(running.pid);
    if (how) ended.push_back({running.process, running.pid, *how});
    return how.has_value();
  });
  return ended;
}

bool Fleet::has(JobPart part) const {
  return std::ranges::any_of(
      running_, [&](const Running& running) { return part_of(running.process->role) == part; });
}

void Fleet::send(int signal) const {
  for (const Running& running : running_) signal_worker(running.pid, signal);
}

void Fleet::send(JobPart part, int signal) const {
  for (const Running& running : running_) {
    if (part_of(running.process->role) == part) signal_worker(running.pid, signal);
  }
}

std::string Fleet::names(JobPart part) const {
  std::vector<const JobProcess*> processes;
  for (const Running& running : running_) {
    if (part_of(running.process->role) == part) processes.push_back(running.process);
  }
  // One that was started again stands behind the others.
  std::ranges::sort(processes);
  std::string text;
  std::optional<JobRole> last;
  for (const JobProcess* process : processes) {
    if (!text.empty()) text += ", ";
    text += last == process->role ? std::to_string(process->number) : process->name;
    last = process->role;
  }
  return text;
}

}  // namespace trireme::detail
