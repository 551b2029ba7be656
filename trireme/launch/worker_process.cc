// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/launch/worker_process.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>

#include "trireme/base/check.h"
#include "trireme/base/error.h"

namespace trireme::detail {
namespace {

// What a launcher above us may have said about this process, not about its workers. The last would
// tell PyTorch that a torchrun serves its store.
constexpr std::string_view kIdentity[] = {"TRIREME_RANK",
                                          "TRIREME_WORLD_SIZE",
                                          "TRIREME_LOCAL_RANK",
                                          "TRIREME_LOCAL_SIZE",
                                          "TRIREME_ADDRESS",
                                          "TRIREME_PORT",
                                          "TRIREME_LISTEN_FD",
                                          "TRIREME_SECRET",
                                          "TRIREME_LAUNCHER_PID",
                                          "TRIREME_ROLE",
                                          "TRIREME_RESTART",
                                          "TRIREME_PS_INDEX",
                                          "TORCHELASTIC_USE_AGENT_STORE"};

std::vector<std::string> worker_environment(const WorkerStart& start) {
  std::vector<std::string> entries;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::string_view name = text.substr(0, text.find('='));
    const auto overridden = [&](const auto& pair) { return pair.first == name; };
    if (std::ranges::find(kIdentity, name) == std::end(kIdentity) &&
        std::ranges::none_of(start.environment, overridden)) {
      entries.emplace_back(text);
    }
  }
  for (const auto& [name, value] : start.environment)
    entries.push_back(fmt::format("{}={}", name, value));
  return entries;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  result.reserve(words.size() + 1);
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

// /proc/self/exe for this program: it is found however argv[0] was written, and stays the program
// that is running even if the file was replaced by a newer build meanwhile.
std::string executable(const std::string& command) {
  static constexpr char kSelf[] = "/proc/self/exe";
  if (command == program_invocation_name) return kSelf;
  struct stat self {};
  struct stat wanted {};
  const bool same = stat(kSelf, &self) == 0 && stat(command.c_str(), &wanted) == 0 &&
                    self.st_dev == wanted.st_dev && self.st_ino == wanted.st_ino;
  return same ? kSelf : command;
}

// All that the child needs, made before fork: between fork and exec only async-signal-safe calls
// are allowed.
struct ChildPlan {
  const char* path;
  char* const* argv;
  char* const* envp;
  int listen_fd;
  int out_fd;
  int err_fd;
  int error_pipe;  // closes at exec; before that it carries errno
  pid_t launcher;
};

void prepare_child_signals() {
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) sigaction(signal, &standard, nullptr);
  // The worker is no foreground process of the terminal. Where the terminal stops the output of
  // such ("stty tostop"), ignoring the signal lets its lines through.
  struct sigaction ignored {};
  ignored.sa_handler = SIG_IGN;
  sigaction(SIGTTOU, &ignored, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

bool take_as(int fd, int number) { return fd < 0 || dup2(fd, number) >= 0; }

[[noreturn]] void become_worker(const ChildPlan& plan) {
  const int null_fd = open("/dev/null", O_RDONLY);
  const bool ready = setpgid(0, 0) == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && null_fd >= 0 &&
                     dup2(null_fd, STDIN_FILENO) >= 0 && take_as(plan.out_fd, STDOUT_FILENO) &&
                     take_as(plan.err_fd, STDERR_FILENO) &&
                     (plan.listen_fd < 0 || fcntl(plan.listen_fd, F_SETFD, 0) == 0);
  if (ready) {
    if (null_fd > STDERR_FILENO) close(null_fd);
    // The launcher may have died before the kernel was asked to watch it.
    if (getppid() != plan.launcher) _exit(1);
    prepare_child_signals();
    execve(plan.path, plan.argv, plan.envp);
  }
  const int error = errno;
  // Nobody is left to tell if this fails; the status says it too.
  [[maybe_unused]] const ssize_t written = write(plan.error_pipe, &error, sizeof error);
  _exit(127);
}

// errno of the child's failure, or 0 once exec has closed the pipe.
int wait_for_exec(int read_end) {
  int error = 0;
  ssize_t got = 0;
  do {
    got = read(read_end, &error, sizeof error);
  } while (got < 0 && errno == EINTR);
  return got == static_cast<ssize_t>(sizeof error) ? error : 0;
}

}  // namespace

pid_t start_worker(const WorkerStart& start) {
  std::vector<std::string> arguments = start.command;
  std::vector<std::string> variables = worker_environment(start);
  const std::vector<char*> argv = pointers(arguments);
  const std::vector<char*> envp = pointers(variables);
  const std::string path = executable(start.command.front());

  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    throw_error<Error>("cannot start a {}: pipe: {}", start.as, strerror(errno));
  }
  const ChildPlan plan{path.c_str(), argv.data(),  envp.data(), start.listen_fd,
                       start.out_fd, start.err_fd, ends[1],     getpid()};
  const pid_t pid = fork();
  const int fork_error = errno;
  if (pid == 0) become_worker(plan);
  close(ends[1]);
  const int exec_error = pid > 0 ? wait_for_exec(ends[0]) : 0;
  close(ends[0]);
  if (pid < 0) throw_error<Error>("cannot start a {}: fork: {}", start.as, strerror(fork_error));
  if (exec_error != 0) {
    reap_worker(pid);
    throw_error<ConfigError>("cannot execute {} as a {}: {}", start.command.front(), start.as,
                             strerror(exec_error));
  }
  return pid;
}

namespace {

// The worker is looked at before it is reaped: as long as it is a zombie its pid, which names the
// process group too, cannot belong to anybody else.
std::optional<WorkerEnd> reap(pid_t pid, int options) {
  siginfo_t info{};
  int result = 0;
  do {
    result = waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT | options);
  } while (result != 0 && errno == EINTR);
  TRIREME_ASSERT(result == 0, "waitid for worker {}: {}", pid, strerror(errno));
  if (info.si_pid == 0) return std::nullopt;
  kill(-pid, SIGKILL);
  while (waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED) != 0 && errno == EINTR) {
  }
  WorkerEnd end;
  (info.si_code == CLD_EXITED ? end.status : end.signal) = info.si_status;
  return end;
}

}  // namespace

std::optional<WorkerEnd> try_reap_worker(pid_t pid) { return reap(pid, WNOHANG); }

WorkerEnd reap_worker(pid_t pid) { return *reap(pid, 0); }

void signal_worker(pid_t pid, int signal) { kill(-pid, signal); }

}  // namespace trireme::detail
