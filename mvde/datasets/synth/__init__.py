"""Random indoor scenes and their renderer: meshes, textures, furniture, rooms, cameras (extra ``mvde[data]``)."""
