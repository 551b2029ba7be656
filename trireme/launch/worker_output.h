// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What workers print, line by line with a prefix: lines of different workers are never mixed.
//
//   LinePrinter printer;
//   start.out_fd = printer.add("[3] ", STDOUT_FILENO).get();     // closed here once it is
//   inherited for (;;) { printer.append_waits(polled);  poll(...);  printer.move(); }
#pragma once

#include <poll.h>

#include <list>
#include <string>
#include <string_view>
#include <vector>

#include "trireme/base/file_descriptor.h"

namespace trireme::detail {

// Never blocks. Where the output takes no more, the workers are not read any further, and then
// block themselves. Used by one thread.
class LinePrinter {
 public:
  // A new pipe whose lines go to the descriptor to (standard output or error), each with the prefix
  // before it. Returns the end to write to. Throws Error when there is no pipe to be had.
  FileDescriptor add(std::string prefix, int to);

  // What poll() is to wait for until there is something to move.
  void append_waits(std::vector<pollfd>& waits) const;
  // Takes what the pipes hold and writes what the outputs accept. A line that is not whole yet
  // stays; one longer than 64 KiB is printed in parts.
  void move();
  // The writers are gone: takes what the pipes still hold, ends lines that were not whole, and
  // closes the pipes. What the outputs do not accept at once stays pending.
  void end();
  // Is there something that waits to be written?
  bool pending() const;

 private:
  struct Output {
    int fd;
    std::string pending;  // whole lines
  };
  struct Source {
    std::string prefix;
    FileDescriptor pipe;
    Output* output;
    std::string line;  // not whole yet
  };

  Output& output_of(int fd);
  static bool takes_more(const Output& output);
  static void read_from(Source& source);
  static void take(Source& source, std::string_view bytes);
  static void finish_line(Source& source);
  static void write_to(Output& output);

  std::list<Output> outputs_;
  std::vector<Source> sources_;
};

}  // namespace trireme::detail
