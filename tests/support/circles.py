"""Circles among the files of the package in the current folder: run in a fresh process, one circle printed a line."""

import grimp


def circles() -> list[tuple[str, ...]]:
    """For each import that closes a circle, the chain of files from the imported one back to the importing one."""
    graph = grimp.build_graph("regcore", cache_dir=None)
    found = []
    for importer in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            chain = graph.find_shortest_chain(importer=imported, imported=importer)
            if chain:
                found.append((importer, *chain))
    return found


if __name__ == "__main__":
    for circle in circles():
        print(" -> ".join(circle))
