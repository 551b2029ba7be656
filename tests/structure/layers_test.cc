// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/structure/layer_rules.h"
#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace trireme::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const std::filesystem::path kRoot = TRIREME_SOURCE_DIR;

TEST(Layers, TreeHoldsToItsTable) {
  const LayerRules rules = LayerRules::of_trireme();
  EXPECT_THAT(check_folders(kRoot, rules), IsEmpty());
  EXPECT_THAT(check_includes(kRoot, rules), IsEmpty());
  EXPECT_THAT(check_cmake(kRoot, rules), IsEmpty());
}

TEST(Layers, FilesAreSmallAndLicensed) {
  EXPECT_THAT(check_files(kRoot, {"trireme", "tests", "examples", "bench", "tools"}), IsEmpty());
}

TEST(Layers, TableIsTransitive) {
  const LayerRules rules = LayerRules::of_trireme();
  EXPECT_THAT(rules.reachable("base"), ElementsAre("base"));
  EXPECT_THAT(rules.reachable("launch"), ElementsAre("base", "comm", "launch", "topology"));
  EXPECT_THAT(rules.reachable("nn"), ElementsAre("base", "nn", "ops"));
  EXPECT_THAT(rules.reachable("optim"), ElementsAre("base", "comm", "ops", "optim", "topology"));
  EXPECT_EQ(rules.reachable("cli").size(), rules.rules().size());
}

// A small tree of the layers base <- comm, base <- ops <- parallel/{data, tensor}, all in order;
// each test below breaks it in its own way.
class SyntheticTree : public ::testing::Test {
 protected:
  SyntheticTree() {
    layer("base", "");
    layer("comm", "DEPENDS base\n  LIBRARIES fmt::fmt");
    layer("ops", "DEPENDS base  # and not comm\n  ");
    layer("parallel", "PRIVATE_LIBRARIES x DEPENDS ops");
    file("base/error.h", "");
    file("base/internal/node.h", "");
    file("base/error.cc",
         "#include \"trireme/base/error.h\"\n#include \"trireme/base/internal/node.h\"\n");
    file("comm/group.h", "#include \"trireme/base/error.h\"\n");
    file("ops/linear.h", "#include <ATen/core/Tensor.h>\n");
    file("ops/linear.cc", "#include \"trireme/ops/linear.h\"\n#include <torch/torch.h>\n");
    file("parallel/hooks.h", "#include \"trireme/ops/linear.h\"\n");
    file("parallel/data/a.h", "#include \"trireme/parallel/hooks.h\"\n");
    file("parallel/tensor/b.h", "#include \"trireme/base/error.h\"\n");
  }

  void file(const std::string& name, const std::string& includes) {
    write_text(folder_ / ("trireme/" + name),
               "// Copyright 2026 The Trireme authors\n// SPDX-License-Identifier: Apache-2.0\n" +
                   includes);
  }
  void layer(const std::string& name, const std::string& arguments) {
    write_text(folder_ / ("trireme/" + name + "/CMakeLists.txt"),
               "# A layer.\ntrireme_layer(" + name + " " + arguments + ")\n");
  }

  std::vector<std::string> folders() const { return check_folders(folder_.path(), rules_); }
  std::vector<std::string> includes() const { return check_includes(folder_.path(), rules_); }
  std::vector<std::string> cmake() const { return check_cmake(folder_.path(), rules_); }
  std::vector<std::string> files() const {
    return check_files(folder_.path(), {"trireme", "none"});
  }

  const LayerRules rules_{{{"base", {}},
                           {"comm", {{"base"}}},
                           {"ops", {{"base"}, true}},
                           {"parallel", {{"ops"}, true, {"data", "tensor"}}}}};
  const TemporaryFolder folder_;
};

TEST_F(SyntheticTree, IsInOrder) {
  EXPECT_THAT(folders(), IsEmpty());
  EXPECT_THAT(includes(), IsEmpty());
  EXPECT_THAT(cmake(), IsEmpty());
  EXPECT_THAT(files(), IsEmpty());
}

TEST_F(SyntheticTree, ForbiddenArrowsAreFound) {
  file("base/up.h", "#include <string>\n  #  include  \"trireme/comm/group.h\"\n");
  file("ops/side.cc", "#include <trireme/comm/group.h>\n");
  file("parallel/data/deep.cc", "#include \"trireme/comm/group.h\"\n");
  file("ops/nowhere.cc", "#include \"trireme/unknown/x.h\"\n#include \"trireme/x.h\"\n");
  EXPECT_THAT(
      includes(),
      ElementsAre("trireme/base/up.h:4: layer base may not include layer comm",
                  "trireme/ops/nowhere.cc:3: layer ops may not include layer unknown",
                  "trireme/ops/nowhere.cc:4: layer ops may not include layer ",
                  "trireme/ops/side.cc:3: layer ops may not include layer comm",
                  "trireme/parallel/data/deep.cc:3: layer parallel may not include layer comm"));
}

TEST_F(SyntheticTree, SiblingsAreKeptApart) {
  file("parallel/data/a.h",
       "#include \"trireme/parallel/tensor/b.h\"\n#include \"trireme/parallel/data/c.h\"\n");
  EXPECT_THAT(
      includes(),
      ElementsAre("trireme/parallel/data/a.h:3: sibling data may not include sibling tensor"));
}

TEST_F(SyntheticTree, InternalsStayInternal) {
  file("comm/group.h", "#include \"trireme/base/internal/node.h\"\n");
  EXPECT_THAT(
      includes(),
      ElementsAre(
          "trireme/comm/group.h:3: trireme/base/internal/node.h is internal to layer base"));
}

TEST_F(SyntheticTree, LibTorchIsKeptOut) {
  file("comm/a.cc", "#include <torch/types.h>\n");
  file("comm/b.h", "#include <ATen/core/Tensor.h>\n");
  file("base/c.h", "#include <c10/util/BFloat16.h>\n");
  file("ops/linear.h", "#include <torch/torch.h>\n");
  EXPECT_THAT(
      includes(),
      ElementsAre(
          "trireme/base/c.h:3: layer base is without LibTorch but includes <c10/util/BFloat16.h>",
          "trireme/comm/a.cc:3: layer comm is without LibTorch but includes <torch/types.h>",
          "trireme/comm/b.h:3: layer comm is without LibTorch but includes <ATen/core/Tensor.h>",
          "trireme/ops/linear.h:3: <torch/torch.h> in a header, include the parts that it needs"));
}

TEST_F(SyntheticTree, RelativeIncludesAreFound) {
  file("base/up.cc", "#include \"error.h\"\n");
  EXPECT_THAT(includes(), ElementsAre("trireme/base/up.cc:3: \"error.h\": own files are "
                                      "included from the root, others in <>"));
}

TEST_F(SyntheticTree, OwnHeadersComeFirst) {
  file("ops/linear.cc", "#include <string>\n#include \"trireme/ops/linear.h\"\n");
  file("base/error.cc", "");
  EXPECT_THAT(includes(), ElementsAre("trireme/base/error.cc: does not include "
                                      "trireme/base/error.h first",
                                      "trireme/ops/linear.cc: does not include "
                                      "trireme/ops/linear.h first"));
}

TEST_F(SyntheticTree, StrayFoldersAndFilesAreFound) {
  file("extra/x.h", "");
  file("all.h", "");
  file("parallel/magic/x.h", "");
  std::filesystem::remove_all(folder_ / "trireme/comm");
  EXPECT_THAT(folders(), ElementsAre("trireme/all.h: a file that belongs to no layer",
                                     "trireme/comm: the layer has no folder",
                                     "trireme/extra: a folder that is no layer",
                                     "trireme/parallel/magic: a folder that no rule names"));
}

TEST_F(SyntheticTree, CMakeMustAgree) {
  layer("base", "DEPENDS comm");
  layer("ops", "DEPENDS base comm LIBRARIES parallel");
  layer("parallel", "");
  write_text(folder_ / "trireme/comm/CMakeLists.txt", "# trireme_layer(comm)\n");
  EXPECT_THAT(
      cmake(),
      ElementsAre("trireme/base/CMakeLists.txt: base may not depend on comm",
                  "trireme/comm/CMakeLists.txt: wanted trireme_layer(comm ...), got ''",
                  "trireme/ops/CMakeLists.txt: ops may not depend on comm",
                  "trireme/comm/group.h:3: layer comm does not link layer base",
                  "trireme/parallel/hooks.h:3: layer parallel does not link layer ops",
                  "trireme/parallel/tensor/b.h:3: layer parallel does not link layer base"));
}

TEST_F(SyntheticTree, LongAndUnlicensedFilesAreFound) {
  const auto lines = [](int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += "\n";
    return text;
  };
  file("base/fits.h", lines(398));
  file("base/long.h", lines(399));
  file("base/fits.cc", lines(598));
  file("base/long.cc", lines(599));
  file("base/wide.cc", "//" + std::string(98, 'x') + "\n//" + std::string(99, 'x') + "\n// " +
                           std::string(94, 'x') + "\xC3\xA9\n");
  write_text(folder_ / "trireme/base/free.cc", "int x;\n");
  EXPECT_THAT(files(),
              ElementsAre("trireme/base/free.cc:1: does not start with the licence",
                          "trireme/base/long.cc: 601 lines, at most 600: split it by concept",
                          "trireme/base/long.h: 401 lines, at most 400: split it by concept",
                          "trireme/base/wide.cc:4: 101 characters, at most 100"));
}

}  // namespace
}  // namespace trireme::testing
