"""Do nitro groups light up in the activation maps of networks that know mutagens, behind mean and max?"""
