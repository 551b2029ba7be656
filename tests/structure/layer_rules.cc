// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "tests/structure/layer_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <regex>
#include <sstream>
#include <utility>

#include "tests/support/files.h"

namespace trireme::testing {
namespace {

namespace fs = std::filesystem;
using Breaches = std::vector<std::string>;

struct Include {
  int line = 0;
  std::string target;
  bool quoted = false;
};

// A source file of trireme/, split at its slashes: layer, then folders, then the file's name.
struct Source {
  fs::path path;
  std::string name;  // from the root, with slashes
  std::vector<std::string> parts;

  std::string layer() const { return parts.size() > 1 ? parts.front() : ""; }
  // The folder below the layer, or nothing for a file that stands at the layer's root.
  std::string folder() const { return parts.size() > 2 ? parts[1] : ""; }
  bool is_header() const { return path.extension() == ".h" || path.extension() == ".cuh"; }
};

std::vector<std::string> split(const std::string& path) {
  std::vector<std::string> parts;
  std::istringstream stream(path);
  for (std::string part; std::getline(stream, part, '/');) parts.push_back(part);
  return parts;
}

// The *.h, *.cc, *.cuh and *.cu below the folder, in the order of their names.
std::vector<Source> sources(const fs::path& root, const std::string& folder) {
  static const std::set<fs::path> kExtensions{".h", ".cc", ".cuh", ".cu"};
  std::vector<Source> found;
  for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
    if (!entry.is_regular_file() || !kExtensions.contains(entry.path().extension())) continue;
    const std::string below = entry.path().lexically_relative(root / folder).generic_string();
    found.push_back({entry.path(), fmt::format("{}/{}", folder, below), split(below)});
  }
  std::sort(found.begin(), found.end(),
            [](const Source& a, const Source& b) { return a.name < b.name; });
  return found;
}

std::vector<Include> includes(const fs::path& path) {
  static const std::regex pattern(R"re(^\s*#\s*include\s*(["<])([^">]+)[">])re");
  std::vector<Include> found;
  std::istringstream text(read_text(path));
  std::string line;
  for (int number = 1; std::getline(text, line); ++number) {
    std::smatch match;
    if (std::regex_search(line, match, pattern))
      found.push_back({number, match[2], match[1] == "\""});
  }
  return found;
}

bool starts_with_any(const std::string& text, std::initializer_list<const char*> beginnings) {
  return std::any_of(beginnings.begin(), beginnings.end(),
                     [&](const char* beginning) { return text.starts_with(beginning); });
}

// What is wrong with an include of one of our own files, or nothing.
std::string own_include_breach(const Source& source, const std::string& target,
                               const LayerRules& rules) {
  const std::vector<std::string> parts = split(target);  // trireme, layer, ...
  const std::string layer = parts.size() > 2 ? parts[1] : "";
  const std::string folder = parts.size() > 3 ? parts[2] : "";
  if (!rules.reachable(source.layer()).contains(layer)) {
    return fmt::format("layer {} may not include layer {}", source.layer(), layer);
  }
  if (layer != source.layer()) {
    return folder == "internal" ? fmt::format("{} is internal to layer {}", target, layer) : "";
  }
  const std::set<std::string>& siblings = rules.rules().at(layer).siblings;
  const bool both = siblings.contains(folder) && siblings.contains(source.folder());
  return both && folder != source.folder()
             ? fmt::format("sibling {} may not include sibling {}", source.folder(), folder)
             : "";
}

std::string include_breach(const Source& source, const Include& include, const LayerRules& rules) {
  if (include.target.starts_with("trireme/")) {
    return own_include_breach(source, include.target, rules);
  }
  if (include.quoted) {
    return fmt::format("\"{}\": own files are included from the root, others in <>",
                       include.target);
  }
  if (starts_with_any(include.target, {"torch/", "ATen/", "c10/", "caffe2/"}) &&
      !rules.rules().at(source.layer()).with_torch) {
    return fmt::format("layer {} is without LibTorch but includes <{}>", source.layer(),
                       include.target);
  }
  if (include.target == "torch/torch.h" && source.is_header()) {
    return "<torch/torch.h> in a header, include the parts that it needs";
  }
  return "";
}

// What the file's trireme_layer(...) says; comments and line breaks do not count.
struct LayerCall {
  std::string name;
  std::vector<std::string> depends;
};

LayerCall parse_layer_call(const std::string& cmake) {
  const std::string text = std::regex_replace(cmake, std::regex("#[^\n]*"), "");
  std::smatch match;
  LayerCall call;
  if (!std::regex_search(text, match, std::regex(R"(trireme_layer\s*\(([^)]*)\))"))) return call;
  std::istringstream words(match[1].str());
  words >> call.name;
  bool in_depends = false;
  for (std::string word; words >> word;) {
    if (word == "DEPENDS" || word == "LIBRARIES" || word == "PRIVATE_LIBRARIES" ||
        word == "WITHOUT" || word == "PRECOMPILED") {
      in_depends = word == "DEPENDS";
    } else if (in_depends) {
      call.depends.push_back(word);
    }
  }
  return call;
}

void check_size(const Source& source, const std::string& text, Breaches& breaches) {
  constexpr std::ptrdiff_t kMaxHeaderLines = 400;
  constexpr std::ptrdiff_t kMaxSourceLines = 600;
  const auto lines = std::count(text.begin(), text.end(), '\n');
  const auto most = source.is_header() ? kMaxHeaderLines : kMaxSourceLines;
  if (lines > most) {
    breaches.push_back(
        fmt::format("{}: {} lines, at most {}: split it by concept", source.name, lines, most));
  }
}

void check_lines(const Source& source, const std::string& text, Breaches& breaches) {
  constexpr std::ptrdiff_t kMaxCharacters = 100;
  std::istringstream stream(text);
  std::string line;
  for (int number = 1; std::getline(stream, line); ++number) {
    const auto characters = std::count_if(line.begin(), line.end(), [](char c) {
      return (static_cast<unsigned char>(c) & 0xC0) != 0x80;  // of UTF-8
    });
    if (characters > kMaxCharacters) {
      breaches.push_back(fmt::format("{}:{}: {} characters, at most {}", source.name, number,
                                     characters, kMaxCharacters));
    }
  }
}

}  // namespace

LayerRules::LayerRules(std::map<std::string, LayerRule> rules) : rules_(std::move(rules)) {
  // As many passes as there are layers reach the end of the longest chain.
  for (const auto& [layer, rule] : rules_) reachable_[layer] = {layer};
  for (std::size_t pass = 0; pass < rules_.size(); ++pass) {
    for (const auto& [layer, rule] : rules_) {
      for (const std::string& below : rule.depends) {
        const std::set<std::string>& more = reachable_.at(below);
        reachable_[layer].insert(more.begin(), more.end());
      }
    }
  }
}

LayerRules LayerRules::of_trireme() {
  return LayerRules({
      {"base", {}},
      {"topology", {{"base"}}},
      {"data", {{"base"}}},
      {"comm", {{"topology"}}},
      {"plan", {{"topology"}}},
      {"launch", {{"comm"}}},
      {"checkpoint", {{"comm"}}},
      {"ops", {{"base"}, true}},
      {"nn", {{"ops"}, true}},
      {"optim", {{"ops", "comm"}, true}},
      {"parallel",
       {{"comm", "ops", "nn", "optim", "plan"},
        true,
        {"data", "shard", "tensor", "context", "expert", "pipeline"}}},
      {"ps", {{"comm", "optim", "checkpoint"}, true}},
      {"elastic", {{"launch", "checkpoint"}, true}},
      {"train",
       {{"data", "launch", "checkpoint", "nn", "optim", "parallel", "ps", "elastic"}, true}},
      {"cli", {{"train", "plan", "data", "launch"}, true}},
  });
}

const std::set<std::string>& LayerRules::reachable(const std::string& layer) const {
  return reachable_.at(layer);
}

Breaches check_folders(const fs::path& root, const LayerRules& rules) {
  Breaches breaches;
  for (const auto& [layer, rule] : rules.rules()) {
    if (!fs::is_directory(root / "trireme" / layer)) {
      breaches.push_back(fmt::format("trireme/{}: the layer has no folder", layer));
      continue;
    }
    for (const auto& entry : fs::directory_iterator(root / "trireme" / layer)) {
      const std::string name = entry.path().filename().string();
      if (entry.is_directory() && !rule.siblings.empty() && !rule.siblings.contains(name)) {
        breaches.push_back(fmt::format("trireme/{}/{}: a folder that no rule names", layer, name));
      }
    }
  }
  for (const auto& entry : fs::directory_iterator(root / "trireme")) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_directory()) {
      breaches.push_back(fmt::format("trireme/{}: a file that belongs to no layer", name));
    } else if (!rules.rules().contains(name)) {
      breaches.push_back(fmt::format("trireme/{}: a folder that is no layer", name));
    }
  }
  std::sort(breaches.begin(), breaches.end());
  return breaches;
}

Breaches check_includes(const fs::path& root, const LayerRules& rules) {
  Breaches breaches;
  for (const Source& source : sources(root, "trireme")) {
    if (!rules.rules().contains(source.layer())) continue;  // told by check_folders
    const std::vector<Include> all = includes(source.path);
    const fs::path own = fs::path(source.name).replace_extension(".h");
    if (source.path.extension() == ".cc" && fs::exists(root / own) &&
        (all.empty() || all.front().target != own.string())) {
      breaches.push_back(fmt::format("{}: does not include {} first", source.name, own.string()));
    }
    for (const Include& include : all) {
      const std::string breach = include_breach(source, include, rules);
      if (!breach.empty()) {
        breaches.push_back(fmt::format("{}:{}: {}", source.name, include.line, breach));
      }
    }
  }
  return breaches;
}

Breaches check_cmake(const fs::path& root, const LayerRules& rules) {
  Breaches breaches;
  std::map<std::string, LayerRule> declared;
  for (const auto& [layer, rule] : rules.rules()) {
    const std::string name = fmt::format("trireme/{}/CMakeLists.txt", layer);
    declared[layer] = {};
    const LayerCall call =
        fs::exists(root / name) ? parse_layer_call(read_text(root / name)) : LayerCall{};
    if (call.name != layer) {
      breaches.push_back(
          fmt::format("{}: wanted trireme_layer({} ...), got '{}'", name, layer, call.name));
      continue;
    }
    for (const std::string& below : call.depends) {
      if (!rules.rules().contains(below) || !rules.reachable(layer).contains(below) ||
          below == layer) {
        breaches.push_back(fmt::format("{}: {} may not depend on {}", name, layer, below));
      } else {
        declared[layer].depends.push_back(below);
      }
    }
  }
  const LayerRules linked(declared);
  for (const Source& source : sources(root, "trireme")) {
    if (!rules.rules().contains(source.layer())) continue;
    for (const Include& include : includes(source.path)) {
      const std::vector<std::string> parts = split(include.target);
      if (parts.size() < 3 || parts[0] != "trireme") continue;
      if (!linked.reachable(source.layer()).contains(parts[1])) {
        breaches.push_back(fmt::format("{}:{}: layer {} does not link layer {}", source.name,
                                       include.line, source.layer(), parts[1]));
      }
    }
  }
  return breaches;
}

Breaches check_files(const fs::path& root, const std::vector<std::string>& folders) {
  constexpr const char* kLicence =
      "// Copyright 2026 The Trireme authors\n// SPDX-License-Identifier: Apache-2.0\n";
  Breaches breaches;
  for (const std::string& folder : folders) {
    if (!fs::is_directory(root / folder)) continue;
    for (const Source& source : sources(root, folder)) {
      const std::string text = read_text(source.path);
      if (!text.starts_with(kLicence)) {
        breaches.push_back(fmt::format("{}:1: does not start with the licence", source.name));
      }
      check_size(source, text, breaches);
      check_lines(source, text, breaches);
    }
  }
  return breaches;
}

}  // namespace trireme::testing
